/** A simulated process: an endpoint, what its application does with it, and its death. */

import type { Endpoint, Message } from "../../mod.ts";
import type { SimulatedHost, SimulatedNetwork, Trace } from "../../testing.ts";
import { laneOf, newEndpoint, send, topicOf, trySend } from "./api.ts";
import { type Entry, HEADER_BYTES, type Ledger, type ProcessId, type Stream } from "./ledger.ts";
import { drawSize, type NodePlan, type Plan, type ReaderKind } from "./plan.ts";
import { Random } from "./random.ts";

/** What all processes of a run share. */
export interface World {
  readonly plan: Plan;
  readonly network: SimulatedNetwork;
  readonly ledger: Ledger;
  readonly log: Trace;
  /** Something went wrong that is no message. */
  complain(text: string): void;
}

/** They take a message before it is acknowledged; others find it in a queue, some time later. */
const HANDLERS: readonly ReaderKind[] = ["handler", "slow handler"];

/** The name of a node on the network. */
export function nodeName(node: number): string {
  return `n${node}`;
}

/** One start of a node. */
export class Process {
  readonly id: ProcessId;
  readonly endpoint: Endpoint;
  readonly #world: World;
  readonly #plan: NodePlan;
  readonly #host: SimulatedHost;
  #alive = true;
  /** Decides what the application does on its own. */
  readonly #random: Random;
  /** Nothing is slow any more. */
  #hurried = false;
  #stopReader: (() => void) | undefined;
  #closing = false;

  constructor(world: World, node: number, start: number) {
    const { plan, network } = world;
    this.#world = world;
    this.id = { node, start };
    this.#plan = plan.nodes[node]!;
    this.#host = network.host(nodeName(node));
    if (start > 0) this.#host.restart();
    this.#random = new Random(plan.seed, 1_000 + node * 100 + start);
    this.endpoint = newEndpoint(plan.version, {
      nodeId: nodeName(node),
      listen: this.#host.address,
      security: "legacy",
      environment: this.#host.environment,
      transports: [this.#host.transport],
      peers: this.#plan.dials.map((peer) => ({
        nodeId: nodeName(peer),
        address: network.host(nodeName(peer)).address,
      })),
      ...this.#plan.options,
    }, this.#plan.session);
    this.#watch();
  }

  /** Whether it runs. */
  get alive(): boolean {
    return this.#alive;
  }

  async start(): Promise<void> {
    await this.endpoint.start();
    this.read(this.#plan.reader);
  }

  /** Dies as with kill -9, or with its whole host. What had been acknowledged was received. */
  kill(silent: boolean): void {
    this.#alive = false;
    this.#host.crash({ silent });
    this.#takeRest();
  }

  /** Closes in order; the application takes what is left in the queue. */
  async close(drainMs: number): Promise<void> {
    this.#closing = true;
    await this.endpoint.close({ drainMs });
    this.#stopReader?.();
    // A link that was closed tells its owner in the next turn, and so does a reader that was stopped.
    await new Promise<void>((resolve) => void this.#world.network.after(1, resolve));
    this.#takeRest();
    const { pendingTimers, connections } = this.#host;
    if (pendingTimers > 0) this.#complain(`closed with ${pendingTimers} timers left`);
    if (connections > 0) this.#complain(`closed, and ${connections} of its links are open`);
  }

  #takeRest(): void {
    this.#stopReader?.();
    const { receiveQueueLength } = this.endpoint.stats();
    for (let i = 0; i < receiveQueueLength; i++) {
      const message = this.endpoint.tryReceive();
      if (message !== undefined) this.#take(message);
    }
  }

  // --- sending ---

  /** Sends one message in one of the ways there are. Returns its size. */
  sendOne(to: number, r: Random): number {
    const { traffic } = this.#world.plan;
    const lane = r.pick(traffic.lanes);
    const size = drawSize(r, traffic);
    const topic = r.chance(traffic.topics) ? drawTopic(r) : undefined;
    const stream: Stream = { from: this.id, to, lane };
    if (this.endpoint.peer(nodeName(to)) === undefined) return 0;
    if (r.chance(traffic.acknowledged)) this.#sendAcknowledged(stream, size, topic);
    else if (r.chance(traffic.waiting)) this.#sendWaiting(stream, size, topic, r);
    else this.#trySend(stream, size, topic);
    return size;
  }

  /** Forgets a peer, and meets it again where this side is the one that dials. */
  disconnect(peer: number, backMs: number): void {
    const nodeId = nodeName(peer);
    if (this.endpoint.peer(nodeId) === undefined) return;
    this.endpoint.disconnect(nodeId).catch((error) => {
      if (this.alive) this.#world.complain(`disconnect rejected: ${error.message}`);
    });
    if (!this.#plan.dials.includes(peer)) return;
    const address = this.#world.network.host(nodeId).address;
    const connect = () => {
      if (!this.alive || this.#closing) return;
      this.endpoint.connect({ nodeId, address }).catch(() => {
        this.#world.network.after(100, connect);
      });
    };
    this.#world.network.after(backMs, connect);
  }

  /** Flushes, and holds the endpoint to what that means. */
  flush(to: number): void {
    const { ledger, plan } = this.#world;
    const nodeId = nodeName(to);
    if (this.endpoint.peer(nodeId)?.version !== 3) return;
    const entries = ledger.pending(this.id, to);
    const taken = HANDLERS.includes(plan.nodes[to]!.reader);
    this.#world.log.record("flush", this.id.node, this.id.start, to, entries.length);
    this.endpoint.flush(nodeId).then(() => {
      if (this.alive) ledger.flush(entries, taken);
    }, () => {});
  }

  #trySend(stream: Stream, size: number, topic: string | undefined): void {
    const { ledger, plan } = this.#world;
    const { entry, payload } = ledger.open(stream, size, topic);
    const { lane, to } = stream;
    const taken = trySend(plan.version, this.endpoint, nodeName(to), payload, lane, topic);
    if (taken) {
      ledger.accept(entry);
      this.#checkBounds(to);
    } else {
      ledger.refuse(entry);
    }
    this.#log("send", stream, size, taken ? 1 : 0);
  }

  /** What was taken must fit what may wait. */
  #checkBounds(to: number): void {
    const { maxPendingMessages, maxPendingBytes } = this.#plan.options;
    const { pendingMessages, unackedMessages, pendingBytes } = this.endpoint.peer(nodeName(to))!;
    if (this.#world.plan.version < 3) return;
    // What was written counts a sixteenth. The control lane may go beyond the limits by an eighth.
    const waiting = pendingMessages - unackedMessages + Math.floor(unackedMessages / 16);
    const [messages, bytes] = [maxPendingMessages!, maxPendingBytes!].map((limit) =>
      Math.ceil(limit * 9 / 8)
    );
    if (waiting > messages! || pendingBytes > bytes!) {
      this.#complain(`keeps ${pendingMessages} messages (${pendingBytes} bytes) waiting`);
    }
  }

  #sendAcknowledged(stream: Stream, size: number, topic: string | undefined): void {
    const { ledger } = this.#world;
    const { entry, payload, number } = ledger.open(stream, size, topic, { acknowledged: true });
    const whenFull = this.#world.plan.traffic.drops ? "reject" : "wait";
    this.#send(stream, payload, { topic, acknowledged: true, whenFull }).then(() => {
      if (!this.alive) return;
      ledger.ack(entry);
      this.#log("acked", stream, number);
    }, (error) => this.#refused(entry, stream, number, error));
    this.#log("send acknowledged", stream, size);
  }

  #sendWaiting(stream: Stream, size: number, topic: string | undefined, r: Random): void {
    const { ledger, plan: { traffic }, network } = this.#world;
    const atMostOnce = r.chance(traffic.atMostOnce);
    const aborts = r.chance(traffic.abort);
    // "drop-oldest" goes before those who wait: who wants the order of calls has only one of them.
    const whenFull = traffic.drops
      ? r.pick(["drop-oldest", "drop-newest", "reject"] as const)
      : "wait";
    // What may vanish must say what it is when it arrives.
    const bytes = atMostOnce ? Math.max(size, HEADER_BYTES) : size;
    const { entry, payload, number } = ledger.open(stream, bytes, topic, { mayVanish: atMostOnce });
    const abort = new AbortController();
    const signal = aborts ? abort.signal : undefined;
    this.#send(stream, payload, { topic, whenFull, signal, atMostOnce }).then(() => {
      if (!this.alive) return;
      ledger.accept(entry);
      this.#log("accepted", stream, number);
    }, (error) => this.#refused(entry, stream, number, error));
    this.#log("send waiting", stream, size);
    if (aborts) network.after(r.between(0, 50), () => abort.abort(new Error("aborted")));
  }

  #send(stream: Stream, payload: Uint8Array, how: {
    topic: string | undefined;
    acknowledged?: boolean;
    whenFull?: "wait" | "reject" | "drop-oldest" | "drop-newest";
    signal?: AbortSignal | undefined;
    atMostOnce?: boolean;
  }): Promise<void> {
    return send(this.#world.plan.version, this.endpoint, nodeName(stream.to), payload, {
      lane: stream.lane,
      topic: how.topic,
      acknowledged: how.acknowledged ?? false,
      whenFull: how.whenFull ?? "wait",
      signal: how.signal,
      delivery: how.atMostOnce === true ? "at-most-once" : "resume",
    });
  }

  #refused(entry: Entry, stream: Stream, number: number, error: unknown): void {
    if (!this.alive) return;
    this.#world.ledger.refuse(entry);
    this.#log("refused", stream, number, (error as { code?: string }).code?.length ?? 0);
  }

  // --- receiving ---

  /** Takes messages in this way from now on. */
  read(kind: ReaderKind): void {
    this.#stopReader?.();
    switch (kind) {
      case "handler":
      case "slow handler":
        this.#stopReader = this.endpoint.onMessage((message) => {
          this.#take(message);
          const pause = kind === "handler" ? undefined : this.#pause();
          if (pause !== undefined) return pause;
        });
        return;
      case "receive":
        return this.#receive();
      case "iterate":
        return this.#iterate();
      case "poll":
        return this.#poll();
    }
  }

  /** From now on the application is as fast as it can be. */
  hurry(): void {
    this.#hurried = true;
    this.read("handler");
  }

  #receive(): void {
    const abort = new AbortController();
    const { signal } = abort;
    this.#stopReader = () => abort.abort();
    const loop = async () => {
      while (!signal.aborted) {
        this.#take(await this.endpoint.receive({ signal }));
        await this.#pause();
      }
    };
    loop().catch(() => {});
  }

  #iterate(): void {
    let stopped = false;
    this.#stopReader = () => {
      stopped = true;
    };
    const loop = async () => {
      for await (const message of this.endpoint) {
        this.#take(message);
        await this.#pause();
        if (stopped) break;
      }
    };
    loop().catch((error) => this.#world.complain(`iterating threw ${error}`));
  }

  #poll(): void {
    let stopped = false;
    this.#stopReader = () => {
      stopped = true;
    };
    const poll = () => {
      if (stopped || !this.alive) return;
      for (let i = 0; i < 20; i++) {
        const message = this.endpoint.tryReceive();
        if (message === undefined) break;
        this.#take(message);
      }
      this.#world.network.after(this.#random.between(1, this.#plan.pauseMs), poll);
    };
    poll();
  }

  #take(message: Message): void {
    const { ledger } = this.#world;
    const from = Number(message.from.slice(1));
    const lane = laneOf(message);
    const arrival = { payload: message.payload, lane, topic: topicOf(message) };
    const number = ledger.receive(from, this.id, arrival)?.number ?? -1;
    const stream: Stream = { from: { node: from, start: 0 }, to: this.id.node, lane };
    this.#log("receive", stream, number, message.payload.length);
  }

  #pause(): Promise<void> | undefined {
    if (this.#hurried || !this.#random.chance(this.#plan.pauseRate)) return undefined;
    const ms = this.#random.between(1, this.#plan.pauseMs);
    return new Promise((resolve) => this.#world.network.after(ms, resolve));
  }

  // --- events ---

  #watch(): void {
    const { ledger, log, plan } = this.#world;
    const { endpoint } = this;
    endpoint.addEventListener("undelivered", ({ detail }) => {
      if (!this.alive) return;
      const to = Number(detail.nodeId.slice(1));
      const lane = laneOf(detail);
      const arrival = { payload: detail.payload, lane, topic: topicOf(detail) };
      ledger.report(this.id, to, arrival, detail.fate, detail.error.code === "Backpressure");
      log.record(
        "undelivered",
        this.id.node,
        this.id.start,
        to,
        detail.payload.length,
        detail.fate,
      );
    });
    endpoint.addEventListener("peerup", ({ detail }) => {
      log.record("up", this.id.node, this.id.start, Number(detail.nodeId.slice(1)));
      const version = endpoint.peer(detail.nodeId)?.version;
      if (version !== plan.version) this.#world.complain(`version ${version} was negotiated`);
    });
    endpoint.addEventListener("peerdown", ({ detail }) => {
      log.record("down", this.id.node, this.id.start, Number(detail.nodeId.slice(1)));
    });
    endpoint.addEventListener("warning", ({ detail }) => {
      if (detail.error === undefined) return;
      const { message } = detail.error;
      log.record("warning", this.id.node, message);
      // Errors of the library read "Cannot …: …"; others come from where nobody expected any.
      if (!/^Cannot .*: /.test(message)) this.#complain(`met an unexpected error, ${message}`);
    });
  }

  #complain(text: string): void {
    this.#world.complain(`${nodeName(this.id.node)}.${this.id.start} ${text}`);
  }

  #log(what: string, { from, to, lane }: Stream, ...more: number[]): void {
    this.#world.log.record(what, this.id.node, this.id.start, from.node, to, lane, ...more);
  }
}

function drawTopic(r: Random): string {
  return r.chance(0.1) ? "ü".repeat(r.between(1, 127)) : `topic ${r.between(1, 5)}`;
}
