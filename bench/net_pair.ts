/** Starts the two processes of one measurement and brings their findings together. */

import { fileURLToPath } from "node:url";
import type { RuntimeName } from "../tools/runtimes.ts";
import type { Findings, Task } from "./net_case.ts";
import type { Answer } from "./net_worker.ts";
import { type BenchProcess, canPin, cores, ProcessGroup } from "./process.ts";

const WORKER = fileURLToPath(new URL("./net_worker.ts", import.meta.url));
/** A measurement that is not over this long after its time has failed. */
const GRACE_MS = 20_000;

/** One measurement. */
export interface PairResult {
  /** Messages per second, the median round trip or the processor time of a broadcast in microseconds. */
  readonly value: number;
  /** The 99th percentile of the round trips, microseconds. */
  readonly p99: number | undefined;
  readonly bulkBytesPerSecond: number | undefined;
  readonly bulkSendMs: number | undefined;
  readonly sender: ProcessCost;
  readonly receiver: ProcessCost;
}

/** How the processes are started. */
export interface PairOptions {
  /** One core for each, by `taskset` of Linux; round trips depend on where the two run. */
  readonly pin: boolean;
  /** Both on the same core: no round trip waits for another core to wake up. */
  readonly oneCore?: boolean;
  /** The sender's runtime where it is another one. */
  readonly senderRuntime?: RuntimeName | undefined;
  /** Where each process leaves a CPU profile. */
  readonly profileFolder: string | undefined;
}

/** What one of the processes needed. */
export interface ProcessCost {
  readonly peakBytes: number;
  /** Processor time per message, nanoseconds; not of round trips. */
  readonly cpuNs: number | undefined;
}

/** Runs a receiver and a sender to their end. */
export async function measurePair(
  runtime: RuntimeName,
  receiverTask: Task,
  senderTask: Task,
  options: PairOptions,
): Promise<PairResult> {
  const group = new ProcessGroup(senderTask.warmUpMs + senderTask.measureMs + GRACE_MS);
  const start = (task: Task): BenchProcess => {
    const { senderRuntime, profileFolder } = options;
    const own = task.role === "sender" ? senderRuntime ?? runtime : runtime;
    return group.start({
      runtime: own,
      file: WORKER,
      name: `${own} ${task.library} ${task.role}`,
      flags: profileFolder === undefined ? [] : profileFlags(own, task, profileFolder),
      core: coreOf(task.role, options),
    }, task);
  };
  try {
    const receiver = start(receiverTask);
    const { address } = await receiver.answer<Answer>();
    const sender = start(senderTask);
    sender.tell(address!);
    const [received, sent] = await Promise.all([
      receiver.answer<Answer>(),
      sender.answer<Answer>(),
    ]);
    await Promise.all([sender.end(), receiver.end()]);
    return combine(received.findings!, sent.findings!, senderTask);
  } finally {
    await group.kill();
  }
}

function combine(received: Findings, sent: Findings, { style }: Task): PairResult {
  const value = style === "broadcast" || style === "each"
    ? sent.cpuNs && sent.cpuNs / 1000
    : received.messagesPerSecond ?? sent.messagesPerSecond ?? sent.p50;
  if (value === undefined) throw new Error("the workers have measured nothing");
  return {
    value,
    p99: sent.p99,
    bulkBytesPerSecond: sent.bulkBytesPerSecond,
    bulkSendMs: sent.bulkSendMs,
    sender: { peakBytes: sent.peakBytes, cpuNs: sent.cpuNs },
    receiver: { peakBytes: received.peakBytes, cpuNs: received.cpuNs },
  };
}

/** The core of each role; undefined: any. */
function coreOf(role: Task["role"], options: PairOptions): number | undefined {
  if (!canPin()) return undefined;
  const [first, second] = cores();
  if (options.oneCore === true) return first;
  if (!options.pin) return undefined;
  return role === "sender" ? first : second ?? first;
}

/** All three take the same flags for a CPU profile, which they write at their end. */
function profileFlags(runtime: RuntimeName, task: Task, folder: string): string[] {
  const tls = task.tls === null ? "plain" : "tls";
  const style = task.style.replaceAll(" ", "-");
  const name = [runtime, task.library, tls, style, task.bytes, task.role].join("_");
  return ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-name=${name}.cpuprofile`];
}
