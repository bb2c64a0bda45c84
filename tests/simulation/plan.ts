/** What a run is like: everything is drawn from its seed. */

import type { EndpointOptions, PoolOptions } from "../../mod.ts";
import type { LaneName, ProtocolVersion, SessionOptions } from "./api.ts";
import { HEADER_BYTES } from "./ledger.ts";
import { Random } from "./random.ts";

/** Bytes of messages in one run, about: what keeps a run short. */
const BYTES_PER_RUN = 700_000;

/** How the network behaves while nothing is broken. */
export interface NetworkPlan {
  /** What bytes take at least on any link. */
  readonly latencyMs: number;
  /** What a link may take longer than another. */
  readonly spreadMs: number;
  /** What a segment may take longer than the one before. */
  readonly jitterMs: number;
  /** Bytes that a direction of a link holds between the two processes. */
  readonly socketBytes: number;
  /** Bytes in the process above which `write` says stop. */
  readonly highWater: number;
  /** Whether bytes count as sent once the socket has them; else once the other side has read them. */
  readonly swallows: boolean;
  /** What links say of themselves. */
  readonly encrypted: boolean;
  /** Probabilities that a packet is lost, or overtaken. */
  readonly loss: number;
  readonly reorder: number;
  readonly bandwidthBytesPerSecond: number;
}

/** How an application takes its messages. */
export type ReaderKind = "handler" | "slow handler" | "receive" | "iterate" | "poll";

/** Probabilities of a fault in one step. */
export interface FaultRates {
  /** RST somewhere on the path of one connection. */
  readonly cut: number;
  /** FIN in both directions, in the middle of whatever is on its way. */
  readonly end: number;
  /** One direction of a connection, or both, is dead from now on. */
  readonly stall: number;
  /** Two nodes do not reach each other for a while, in one direction or both. */
  readonly partition: number;
  /** A bit of one frame is wrong. */
  readonly corrupt: number;
  /** A process is closed or killed, or its host is switched off, and started again. */
  readonly restart: number;
  /** One side calls `disconnect`. */
  readonly disconnect: number;
  /** A process stands still for a while. */
  readonly pause: number;
  /** One side forgets its connections with another, which is not told. */
  readonly forget: number;
}

/** How a node sends. */
export interface TrafficPlan {
  /** Probability of a burst to a peer in one step. */
  readonly burstRate: number;
  readonly burstMost: number;
  /** The largest message. */
  readonly maxSize: number;
  /** Whether sizes from 0 to 11 bytes occur, which say nothing of themselves. */
  readonly tiny: boolean;
  readonly lanes: readonly LaneName[];
  readonly acknowledged: number;
  readonly atMostOnce: number;
  readonly waiting: number;
  readonly abort: number;
  /** Whether those who find the queue full give messages up instead of waiting. */
  readonly drops: boolean;
  readonly topics: number;
  /** Probability of a flush to a peer in one step. */
  readonly flush: number;
}

/** One node. */
export interface NodePlan {
  readonly options: Partial<EndpointOptions>;
  readonly session: SessionOptions;
  readonly reader: ReaderKind;
  /** Probability that the application pauses after a message, and for how long at most. */
  readonly pauseRate: number;
  readonly pauseMs: number;
  /** The peers that this node dials. */
  readonly dials: readonly number[];
}

/** One run. */
export interface Plan {
  readonly seed: number;
  readonly version: ProtocolVersion;
  readonly network: NetworkPlan;
  readonly nodes: readonly NodePlan[];
  readonly traffic: TrafficPlan;
  readonly faults: FaultRates;
  readonly steps: number;
  readonly stepMs: number;
  /** Whether a session may end before all is delivered, so that messages may be reported. */
  readonly sessionsEnd: boolean;
  /** Whether a process may die. */
  readonly processesDie: boolean;
}

const NO_MORE_FAULTS = { pause: 0, forget: 0 };
const GOOD_PATH = { loss: 0, reorder: 0, bandwidthBytesPerSecond: Infinity };

const ALL_LANES: readonly LaneName[] = ["control", "normal", "normal", "bulk"];

/** Draws a run. */
export function drawPlan(seed: number, version: ProtocolVersion): Plan {
  const r = new Random(seed, 1);
  // What was thought of later draws for itself: it moves nothing else.
  const more = new Random(seed, 6);
  const pools = new Random(seed, 7);
  const leaves = version === 3 && more.chance(0.04);
  const bad = new Random(seed, 8);
  const faults = {
    ...drawFaults(r, version),
    ...(leaves ? { disconnect: 0.08 } : {}),
    ...(version === 3 ? drawMoreFaults(bad) : {}),
  };
  const network = { ...drawNetwork(r), ...(version === 3 ? drawBadPath(bad) : GOOD_PATH) };
  const processesDie = faults.restart > 0;
  const shortWindow = r.chance(0.05);
  const sessionsEnd = processesDie || shortWindow || faults.disconnect > 0;
  const exact = version === 3 ? !sessionsEnd : quiet(faults);
  const flush = more.chance(0.4) ? more.next() * 0.2 : 0;
  const traffic = { ...drawTraffic(r, version, exact), flush };
  const count = r.chance(0.25) ? 3 : 2;
  const patience = roundTripMs(network) * (2 + traffic.maxSize / network.socketBytes);
  const dials = drawDials(r, count);
  return {
    seed,
    version,
    network: faults.corrupt > 0 ? { ...network, encrypted: false } : network,
    nodes: dials.map((peers) => {
      const node = withPool(drawNode(r, traffic.maxSize, patience, shortWindow, peers), pools);
      return leaves ? slowReader(node, more) : node;
    }),
    traffic,
    faults,
    steps: r.between(20, 80),
    stepMs: r.spread(5, 120),
    sessionsEnd,
    processesDie,
  };
}

/** Whether every link lives until the end. */
export function quiet(faults: FaultRates): boolean {
  return Object.values(faults).every((rate) => rate === 0);
}

function drawFaults(r: Random, version: ProtocolVersion): FaultRates {
  const rate = (chance: number, most: number) => r.chance(chance) ? r.next() * most : 0;
  const faults = {
    cut: rate(0.6, 0.25),
    end: rate(0.25, 0.1),
    stall: rate(0.3, 0.06),
    partition: rate(0.3, 0.05),
    corrupt: rate(0.15, 0.06),
    restart: rate(0.3, 0.05),
    disconnect: rate(0.05, 0.03),
    ...NO_MORE_FAULTS,
  };
  if (r.chance(0.08)) {
    return {
      ...{ cut: 0, end: 0, stall: 0, partition: 0, corrupt: 0, restart: 0, disconnect: 0 },
      ...NO_MORE_FAULTS,
    };
  }
  // Version 2 has no pings: where a peer lives, it takes a dead connection for a slow one.
  return version === 2 ? { ...faults, corrupt: 0, stall: 0 } : faults;
}

function drawMoreFaults(r: Random): Pick<FaultRates, "pause" | "forget"> {
  return {
    pause: r.chance(0.2) ? r.next() * 0.05 : 0,
    forget: r.chance(0.15) ? r.next() * 0.06 : 0,
  };
}

/** What goes wrong with single packets. */
function drawBadPath(r: Random): typeof GOOD_PATH {
  return {
    loss: r.chance(0.15) ? r.next() * 0.04 : 0,
    reorder: r.chance(0.15) ? r.next() * 0.2 : 0,
    bandwidthBytesPerSecond: r.chance(0.2) ? r.spread(200_000, 10_000_000) : Infinity,
  };
}

function drawNetwork(r: Random): Omit<NetworkPlan, keyof typeof GOOD_PATH> {
  const latencyMs = r.spread(1, 40) - (r.chance(0.2) ? 1 : 0);
  return {
    latencyMs,
    spreadMs: r.chance(0.5) ? r.spread(1, 60) : 0,
    jitterMs: r.chance(0.4) ? r.spread(1, 10) : 0,
    socketBytes: r.spread(4_000, 300_000),
    highWater: r.spread(500, 200_000),
    swallows: r.chance(0.7),
    encrypted: r.chance(0.5),
  };
}

/** The longest round trip, behind what fills a connection. */
function roundTripMs(network: NetworkPlan): number {
  const { latencyMs, spreadMs, jitterMs, socketBytes, bandwidthBytesPerSecond } = network;
  return 2 * (latencyMs + spreadMs + jitterMs + 1000 * socketBytes / bandwidthBytesPerSecond);
}

function drawTraffic(
  r: Random,
  version: ProtocolVersion,
  exact: boolean,
): Omit<TrafficPlan, "flush"> {
  const newest = version === 3;
  const drops = r.chance(0.15);
  const oneLane = r.chance(0.25);
  return {
    burstRate: 0.2 + 0.8 * r.next(),
    burstMost: r.spread(1, 20),
    maxSize: r.chance(0.3) ? r.spread(60_000, 210_000) : r.spread(HEADER_BYTES, 20_000),
    tiny: exact && !drops,
    lanes: !newest ? ["normal"] : oneLane ? [r.pick(ALL_LANES)] : ALL_LANES,
    acknowledged: newest && r.chance(0.6) ? r.next() * 0.4 : 0,
    atMostOnce: newest && r.chance(0.15) ? r.next() * 0.3 : 0,
    waiting: r.chance(0.6) ? r.next() * 0.5 : 0,
    abort: r.chance(0.3) ? 0.2 : 0,
    drops,
    topics: newest && r.chance(0.5) ? r.next() : 0,
  };
}

/** For each node the peers it dials: for each pair one side does, or both. */
function drawDials(r: Random, count: number): number[][] {
  const dials: number[][] = Array.from({ length: count }, () => []);
  for (let a = 0; a < count; a++) {
    for (let b = a + 1; b < count; b++) {
      const who = r.pick(["a", "b", "both"]);
      if (who !== "b") dials[a]!.push(b);
      if (who !== "a") dials[b]!.push(a);
    }
  }
  return dials;
}

/** `patienceMs` is what a node must be able to wait for an answer to its largest message. */
function drawNode(
  r: Random,
  maxSize: number,
  patienceMs: number,
  shortWindow: boolean,
  dials: number[],
): NodePlan {
  const maxMessageSize = Math.max(1_024, maxSize + r.between(0, 1_000));
  const maxPendingBytes = r.chance(0.4)
    ? 64 * 1024 * 1024
    : Math.max(maxMessageSize, r.spread(4_000, 4_000_000));
  return {
    options: {
      poolSize: r.between(1, 4),
      maxMessageSize: r.chance(0.5) ? Math.min(16 * 1024 * 1024, maxPendingBytes) : maxMessageSize,
      maxPendingMessages: r.chance(0.5) ? 1000 : r.spread(2, 200),
      maxPendingBytes,
      recvBufferSize: r.chance(0.5) ? 1000 : r.spread(1, 100),
      keepaliveIntervalSecs: (patienceMs + r.spread(200, 2_000)) / 1000,
      connectTimeoutMs: Math.ceil(patienceMs) + r.between(300, 3_000),
      ioTimeoutMs: r.pick([2_000, 5_000, 30_000]),
      resumeWindowMs: shortWindow ? r.between(50, 1_000) : 60_000,
      compression: { enabled: r.chance(0.15), minSize: r.pick([0, 64, 256, 5_000]) },
      reconnect: {
        initialBackoffMs: r.between(1, 100),
        maxBackoffMs: r.between(200, 1_500),
        jitter: r.next(),
      },
    },
    session: {
      receiveWindow: Math.max(65_536 + maxSize, r.spread(65_536, 4_000_000)),
      batchDelayMs: r.chance(0.15) ? r.between(1, 20) : 0,
    },
    reader: r.pick(["handler", "handler", "slow handler", "receive", "iterate", "poll"]),
    pauseRate: r.chance(0.5) ? 0 : r.next() * 0.2,
    pauseMs: r.spread(1, 300),
    dials,
  };
}

/** Its connections come and go by themselves, too. */
function withPool(node: NodePlan, r: Random): NodePlan {
  const pool: PoolOptions = {
    strategy: r.pick(["first-available", "first-available", "round-robin", "least-loaded"]),
    idleTimeoutMs: r.chance(0.3) ? r.spread(20, 2_000) : 0,
    maxLifetimeMs: r.chance(0.3) ? r.spread(100, 5_000) : 0,
    healthCheckIntervalMs: r.chance(0.3) ? r.spread(50, 2_000) : 10_000,
  };
  return { ...node, session: { ...node.session, pool } };
}

/** Its queue is full most of the time, so that messages of ended sessions wait outside. */
function slowReader(node: NodePlan, r: Random): NodePlan {
  return {
    ...node,
    options: { ...node.options, recvBufferSize: r.between(4, 20) },
    reader: r.pick(["receive", "iterate"]),
    pauseRate: 1,
    pauseMs: r.spread(10, 60),
  };
}

/** The size of a message: mostly small, sometimes several fragments. */
export function drawSize(r: Random, traffic: TrafficPlan): number {
  if (traffic.tiny && r.chance(0.08)) return r.pick([0, 0, 1, r.between(2, HEADER_BYTES - 1)]);
  const size = HEADER_BYTES + Math.floor(r.next() ** 5 * (traffic.maxSize - HEADER_BYTES + 1));
  return Math.min(size, traffic.maxSize);
}

/** Bytes a run may still send. */
export class Budget {
  #left = BYTES_PER_RUN;

  /** Whether there is some left. */
  get left(): boolean {
    return this.#left > 0;
  }

  /** A message costs its bytes and some more. */
  take(bytes: number): void {
    this.#left -= bytes + 1_000;
  }
}
