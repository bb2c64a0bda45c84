/** Two processes, one of which sends to the other at full rate. */

import { fileURLToPath } from "node:url";
import type { RuntimeName } from "../tools/runtimes.ts";
import type { FlowReport, FlowTask } from "./flow_worker.ts";
import { type BenchProcess, collectorFlags, ProcessGroup } from "./process.ts";

const WORKER = fileURLToPath(new URL("./flow_worker.ts", import.meta.url));
/** What is not over this long after its time has failed. */
const GRACE_MS = 60_000;

/** How a flow is set up. */
export interface FlowOptions extends Omit<FlowTask, "role" | "tls"> {
  readonly runtime: RuntimeName;
  /** The certificates of the sender and the receiver; undefined: no TLS. */
  readonly tls?: Readonly<Record<FlowTask["role"], NonNullable<FlowTask["tls"]>>> | undefined;
  /** How long it will be used at the most, milliseconds. */
  readonly limitMs: number;
  /** What the sender dials instead of the receiver's address. */
  readonly via?: (address: string) => Promise<string>;
}

/** What both processes say at one time. */
export interface FlowReports {
  readonly sender: FlowReport;
  readonly receiver: FlowReport;
}

/** Messages per second and processor time per message between two reports. */
export interface FlowRate {
  readonly messagesPerSecond: number;
  readonly senderNs: number;
  readonly receiverNs: number;
}

/** A flow between its start and its end. */
export class Flow {
  readonly #group: ProcessGroup;
  readonly #sender: BenchProcess;
  readonly #receiver: BenchProcess;

  private constructor(group: ProcessGroup, sender: BenchProcess, receiver: BenchProcess) {
    this.#group = group;
    this.#sender = sender;
    this.#receiver = receiver;
  }

  /** Connects the two and begins to send. */
  static async start(options: FlowOptions): Promise<Flow> {
    const { runtime, tls, limitMs, via, ...shared } = options;
    const group = new ProcessGroup(limitMs + GRACE_MS);
    const start = (role: FlowTask["role"]): BenchProcess => {
      const task: FlowTask = { ...shared, role, tls: tls?.[role] ?? null };
      const flags = collectorFlags(runtime);
      return group.start({ runtime, file: WORKER, name: `${runtime} ${role}`, flags }, task);
    };
    try {
      const [receiver, sender] = [start("receiver"), start("sender")];
      const { addresses } = await receiver.answer<FlowReport>();
      await sender.answer();
      const dialed = via === undefined ? addresses : await Promise.all(addresses.map(via));
      await sender.ask(`connect ${dialed.join(" ")}`);
      await sender.ask("go");
      return new Flow(group, sender, receiver);
    } catch (error) {
      await group.kill();
      throw error;
    }
  }

  /**
   * What both say now; "collect": after their garbage collectors have run.
   *
   * @throws {Error} Where a message was lost, doubled or changed.
   */
  async report(order: "report" | "collect" = "report"): Promise<FlowReports> {
    const [sender, receiver] = await Promise.all([
      this.#sender.ask<FlowReport>(order),
      this.#receiver.ask<FlowReport>(order),
    ]);
    return { sender, receiver };
  }

  /** The rate over so many milliseconds from now. */
  async measure(ms: number): Promise<FlowRate> {
    const before = await this.report();
    await sleep(ms);
    return rateOf(before, await this.report());
  }

  /**
   * Ends the sending; what was accepted must have come.
   *
   * @throws {Error} Where it has not.
   */
  async stop(): Promise<FlowReports> {
    const sender = await this.#sender.ask<FlowReport>("stop");
    const receiver = await this.#receiver.ask<FlowReport>("report");
    if (sender.messages !== receiver.messages) {
      throw new Error(`${sender.messages} messages were sent, ${receiver.messages} came`);
    }
    return { sender, receiver };
  }

  /** Ends the processes, wherever they are. */
  async kill(): Promise<void> {
    await this.#group.kill();
  }
}

/** What was between two reports. */
export function rateOf(before: FlowReports, after: FlowReports): FlowRate {
  const messages = after.receiver.messages - before.receiver.messages;
  const ns = (role: keyof FlowReports) => {
    return (after[role].cpuMs - before[role].cpuMs) * 1e6 / messages;
  };
  return {
    messagesPerSecond: messages / (after.receiver.now - before.receiver.now) * 1000,
    senderNs: ns("sender"),
    receiverNs: ns("receiver"),
  };
}

/** Waits. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
