/**
 * One simulated run: nodes on a network with faults, all of it drawn from a seed, and the ledger
 * that says whether every promise was kept.
 */

import { promisesSettled } from "../../src/testing/virtual_time.ts";
import { type ConnectionEnd, SimulatedNetwork, type Trace } from "../../testing.ts";
import { NEWEST, type ProtocolVersion } from "./api.ts";
import { Ledger, type ProcessId, type Promises } from "./ledger.ts";
import { Budget, drawPlan, type NodePlan, type Plan, quiet } from "./plan.ts";
import { nodeName, Process, type World } from "./process.ts";
import { Random } from "./random.ts";

/** How a run is made. */
export interface SimulationOptions {
  version?: ProtocolVersion;
  /** Gets every event as a line. */
  write?: (line: string) => void;
}

/** How a run went. */
export interface SimulationResult {
  /** Of all that happened, in order: equal for equal runs. */
  readonly hash: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly accepted: number;
  readonly acked: number;
  readonly received: number;
  readonly reported: number;
  /** Connections that were made. */
  readonly connections: number;
  readonly faults: number;
}

/** After the faults are over, all must be delivered within this time. */
const HEALED_MS = 120_000;
/** What comes late still comes within this time. */
const LATE_MS = 500;
const LONGEST_FAULT_MS = 2_500;

/** Runs a seed; rejects with what was violated and the command that runs it again. */
export async function simulate(
  seed: number,
  options: SimulationOptions = {},
): Promise<SimulationResult> {
  const run = new Run(seed, options.version ?? NEWEST, options.write);
  let violations: string[];
  try {
    violations = await run.run();
  } catch (error) {
    violations = [...run.violations, (error as Error).stack ?? String(error)];
  }
  if (violations.length === 0) return run.result;
  const { version } = run.plan;
  const command = `deno run -A tests/simulation/replay.ts ${seed} --version ${version}`;
  throw new Error(`seed ${seed}:\n  ${violations.join("\n  ")}\nreplay: ${command}`);
}

function networkOf(
  { seed, network }: Plan,
  onEvent: ((line: string) => void) | undefined,
): SimulatedNetwork {
  const { latencyMs, spreadMs, highWater, swallows, ...conditions } = network;
  return new SimulatedNetwork({
    ...conditions,
    seed,
    latencyMs: [latencyMs, latencyMs + spreadMs],
    fragmentation: 0.4,
    highWaterBytes: highWater,
    bufferedUntilRead: !swallows,
    ...(onEvent === undefined ? {} : { onEvent }),
  });
}

/** A node: the process it runs now, and when the next one starts. */
interface Place {
  process: Process | undefined;
  starts: number;
  /** When it is started again. */
  backAt: number;
  /** It is still closing. */
  closing: boolean;
}

class Run implements World {
  readonly plan: Plan;
  readonly network: SimulatedNetwork;
  readonly ledger: Ledger;
  readonly log: Trace;
  readonly #random: Random;
  readonly #places: Place[] = [];
  readonly #died = new Set<string>();
  readonly #complaints: string[] = [];
  /** Draws when to flush. */
  readonly #flushes: Random;
  readonly #budget = new Budget();
  readonly #ending: Promise<void>[] = [];
  #faults = 0;
  #hurried = false;

  constructor(
    seed: number,
    version: ProtocolVersion,
    write: ((line: string) => void) | undefined,
  ) {
    const plan = drawPlan(seed, version);
    this.plan = plan;
    this.ledger = new Ledger(promisesOf(plan));
    this.network = networkOf(plan, write);
    this.log = this.network.trace;
    this.#random = new Random(seed, 3);
    this.#flushes = new Random(seed, 7);
    write?.(JSON.stringify(plan, undefined, 1));
  }

  get violations(): string[] {
    return [...this.#complaints, ...this.ledger.violations];
  }

  get result(): SimulationResult {
    const { accepted, acked, received, reported } = this.ledger;
    return {
      hash: this.log.digest,
      events: this.log.count,
      virtualMs: this.network.now(),
      accepted,
      acked,
      received,
      reported,
      connections: this.network.connectionsMade,
      faults: this.#faults,
    };
  }

  complain(text: string): void {
    if (this.#complaints.length < 20) this.#complaints.push(text);
    this.log.record("violation", text);
  }

  async run(): Promise<string[]> {
    for (let node = 0; node < this.plan.nodes.length; node++) {
      this.#places.push({ process: undefined, starts: 0, backAt: 0, closing: false });
      await this.#startNode(node);
      if (this.#random.chance(0.3)) await this.network.run(this.#random.between(0, 30));
    }
    for (let step = 0; step < this.plan.steps; step++) {
      this.#sendBursts();
      await this.#breakThings();
      await this.network.run(this.#random.between(0, this.plan.stepMs));
      await this.#restartDue();
    }
    await this.#heal();
    await this.#deliverAll();
    await this.#closeAll();
    this.ledger.check((process) => !this.#died.has(nameOf(process)));
    return this.violations;
  }

  async #startNode(node: number): Promise<void> {
    const place = this.#places[node]!;
    const process = new Process(this, node, place.starts++);
    this.log.record("start", node, process.id.start);
    await process.start();
    place.process = process;
    if (this.#hurried) process.hurry();
  }

  #sendBursts(): void {
    const { burstRate, burstMost, flush } = this.plan.traffic;
    this.#places.forEach(({ process }, from) => {
      for (let to = 0; to < this.#places.length; to++) {
        if (to === from || process === undefined || !this.#random.chance(burstRate)) continue;
        for (let i = this.#random.between(1, burstMost); i > 0; i--) {
          if (this.#budget.left) this.#budget.take(process.sendOne(to, this.#random));
        }
        if (this.#flushes.chance(flush)) process.flush(to);
      }
    });
  }

  // --- faults ---

  async #breakThings(): Promise<void> {
    const { faults } = this.plan;
    const r = this.#random;
    const happens = (rate: number) => {
      if (!r.chance(rate)) return false;
      this.#faults++;
      return true;
    };
    if (happens(faults.cut)) this.#cut();
    if (happens(faults.end)) this.#pickLink()?.endBothWays();
    if (happens(faults.stall)) this.#stall();
    if (happens(faults.corrupt)) this.#pickLink()?.corrupt();
    if (happens(faults.partition)) this.#partition();
    if (happens(faults.disconnect)) this.#disconnect();
    if (happens(faults.restart)) await this.#endProcess();
    if (happens(faults.pause)) this.#pause();
    if (happens(faults.forget)) this.#forget();
  }

  #pickLink(): ConnectionEnd | undefined {
    const links = this.network.connections();
    return links.length === 0 ? undefined : this.#random.pick(links);
  }

  #cut(): void {
    const r = this.#random;
    const link = this.#pickLink();
    // Both hear of it at once, or each when the news gets there.
    const ms = () => this.plan.version === 2 || r.chance(0.5) ? 0 : r.between(0, 60);
    if (link !== undefined) this.#note("cut", link.id);
    link?.cut(ms(), ms());
  }

  #stall(): void {
    const link = this.#pickLink();
    if (link === undefined) return;
    this.#note("stall", link.id);
    link.stall(this.#random.chance(0.4));
  }

  #partition(): void {
    const r = this.#random;
    const from = r.between(0, this.#places.length - 1);
    const to = (from + r.between(1, this.#places.length - 1)) % this.#places.length;
    const both = r.chance(0.6);
    const { network } = this;
    const [a, b] = [nodeName(from), nodeName(to)];
    this.#note("partition", from, to, both ? 1 : 0);
    network.partitionOneWay(a, b);
    if (both) network.partitionOneWay(b, a);
    this.network.after(r.spread(1, LONGEST_FAULT_MS), () => {
      network.heal(a, b);
      this.#note("heal", from, to);
    });
  }

  #pause(): void {
    const r = this.#random;
    const host = this.network.host(nodeName(r.between(0, this.#places.length - 1)));
    host.pause();
    this.network.after(r.spread(1, LONGEST_FAULT_MS), () => host.resume());
  }

  #forget(): void {
    const r = this.#random;
    const node = r.between(0, this.#places.length - 1);
    const other = (node + r.between(1, this.#places.length - 1)) % this.#places.length;
    this.network.halfOpen(nodeName(node), nodeName(other));
  }

  #disconnect(): void {
    const r = this.#random;
    const node = r.between(0, this.#places.length - 1);
    const other = (node + r.between(1, this.#places.length - 1)) % this.#places.length;
    const process = this.#places[node]!.process;
    if (process === undefined) return;
    this.#note("disconnect", node, other);
    process.disconnect(other, r.spread(1, LONGEST_FAULT_MS));
  }

  async #endProcess(): Promise<void> {
    const r = this.#random;
    const node = r.between(0, this.#places.length - 1);
    const place = this.#places[node]!;
    const { process } = place;
    const how = r.pick(["close", "kill", "power"] as const);
    place.backAt = Math.max(place.backAt, this.network.now() + r.spread(1, LONGEST_FAULT_MS));
    if (process === undefined) return;
    this.#note(how, node, process.id.start);
    place.process = undefined;
    if (how === "close") {
      // Who stands still closes nothing.
      this.network.host(nodeName(node)).resume();
      place.closing = true;
      const closed = process.close(r.chance(0.5) ? 0 : r.between(1, 300)).then(() => {
        place.closing = false;
      });
      this.#ending.push(closed);
      return;
    }
    this.#died.add(nameOf(process.id));
    // It dies between two turns, not in the middle of one.
    await promisesSettled();
    process.kill(how === "power");
  }

  async #restartDue(): Promise<void> {
    for (const [node, place] of this.#places.entries()) {
      const due = place.process === undefined && !place.closing &&
        place.backAt <= this.network.now();
      if (!due) continue;
      await this.#startNode(node);
    }
  }

  #note(what: string, ...details: (number | string)[]): void {
    this.log.record(what, ...details);
  }

  // --- the end ---

  /** No fault happens any more, those there are come to an end, and nobody is slow. */
  async #heal(): Promise<void> {
    this.#hurried = true;
    for (const { process } of this.#places) process?.hurry();
    await this.network.run(LONGEST_FAULT_MS);
    await this.network.runUntil(Promise.all(this.#ending), { withinMs: HEALED_MS });
    await this.#restartDue();
    await this.network.run(0);
    this.log.record("healed");
  }

  async #deliverAll(): Promise<void> {
    const flushes: { name: string; done: boolean }[] = [];
    for (const { process } of this.#places) {
      for (const { nodeId } of process!.endpoint.peers()) {
        const flush = { name: `${nameOf(process!.id)} to ${nodeId}`, done: false };
        const end = () => {
          flush.done = true;
        };
        process!.endpoint.flush(nodeId).then(end, end);
        flushes.push(flush);
      }
    }
    const exact = promisesOf(this.plan).nothingLost;
    const survived = (process: ProcessId) => !this.#died.has(nameOf(process));
    const done = () =>
      flushes.every((flush) => flush.done) && (!exact || this.ledger.missing(survived) === 0);
    const end = this.network.now() + HEALED_MS;
    await this.network.runUntil(() => done() || this.network.now() >= end, {
      withinMs: HEALED_MS + 1,
    });
    const open = flushes.filter((flush) => !flush.done).map((flush) => flush.name);
    if (open.length > 0) this.complain(`flush does not end: ${open.join(", ")}`);
    await this.network.run(LATE_MS);
    this.log.record("delivered");
  }

  async #closeAll(): Promise<void> {
    const closes = this.#places.map(({ process }) => process!.close(this.#random.pick([0, 200])));
    await this.network.runUntil(Promise.all(closes));
    await this.network.run(LONGEST_FAULT_MS);
    const left = this.network.connections().map((link) => link.id);
    // The network itself may still send a packet again.
    const timers = this.network.hosts().reduce((sum, host) => sum + host.pendingTimers, 0);
    if (timers > 0) this.complain(`${timers} timers are left`);
    if (left.length > 0) this.complain(`links are left: ${left.join(", ")}`);
    this.log.record("closed");
  }
}

/** What the version promises under the faults of this run. */
function promisesOf(plan: Plan): Promises {
  const { version, network, processesDie, sessionsEnd, faults, nodes } = plan;
  if (version === 3) return { nothingLost: true, nothingReported: !sessionsEnd, inOrder: true };
  return {
    nothingLost: !network.swallows && !processesDie,
    nothingReported: quiet(faults),
    // Without numbers, what is still on its way when its sender gives a connection up comes late;
    // so it may where both sides dial, and one ends several connections of its own at once.
    inOrder: quiet({ ...faults, cut: 0 }) && !nodes.some(dialsBack),
  };
}

/** Whether a node dials one that dials it. */
function dialsBack({ dials }: NodePlan, node: number, nodes: readonly NodePlan[]): boolean {
  return dials.some((peer) => nodes[peer]!.dials.includes(node));
}

function nameOf({ node, start }: ProcessId): string {
  return `${nodeName(node)}.${start}`;
}
