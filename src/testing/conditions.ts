/**
 * What the way from one host to another is like.
 *
 * @module
 */

/**
 * The way from one host to another. Connections are streams as TCP makes them: what is lost or
 * overtaken on the way shows as a delay, never as missing bytes. Datagrams are lost, doubled and
 * overtaken.
 */
export interface LinkConditions {
  /**
   * Milliseconds that bytes take at least; of a pair, each connection draws its own between the two.
   * @default {1}
   */
  readonly latencyMs?: number | readonly [number, number];
  /**
   * Milliseconds that a packet may take longer.
   * @default {0}
   */
  readonly jitterMs?: number;
  /**
   * Probability, 0 to 0.9, that a packet is lost. It is sent again after 200 ms or more, and what
   * follows waits for it.
   * @default {0}
   */
  readonly loss?: number;
  /**
   * Probability, 0 to 1, that a packet takes longer than those sent after it, by up to twice the
   * latency. They wait for it.
   * @default {0}
   */
  readonly reorder?: number;
  /**
   * Probability, 0 to 1, that a datagram arrives twice. Streams do not show it.
   * @default {0}
   */
  readonly duplicate?: number;
  /**
   * Probability, 0 to 1, that a packet carries only a part of what there is, and that packets which
   * wait at their target are read as one.
   * @default {0}
   */
  readonly fragmentation?: number;
  /**
   * Bytes per second, shared by the connections that take this way.
   * @default {Infinity}
   */
  readonly bandwidthBytesPerSecond?: number;
  /**
   * Bytes of one connection that are on their way or arrived and not read; more waits in the sender.
   * @default {262144}
   */
  readonly socketBytes?: number;
}

/** All of them. */
export type Conditions = Required<LinkConditions>;

/** A way where nothing goes wrong. */
export const DEFAULT_CONDITIONS: Conditions = {
  latencyMs: 1,
  jitterMs: 0,
  loss: 0,
  reorder: 0,
  duplicate: 0,
  fragmentation: 0,
  bandwidthBytesPerSecond: Infinity,
  socketBytes: 262_144,
};

/** With more, whatever is sent would mostly be sent again. */
const MOST_LOSS = 0.9;

/**
 * The conditions with some of them changed.
 *
 * @throws {RangeError} One of them is out of range.
 */
export function withConditions(base: Conditions, changes: LinkConditions): Conditions {
  const all: Conditions = {
    latencyMs: changes.latencyMs ?? base.latencyMs,
    jitterMs: changes.jitterMs ?? base.jitterMs,
    loss: changes.loss ?? base.loss,
    reorder: changes.reorder ?? base.reorder,
    duplicate: changes.duplicate ?? base.duplicate,
    fragmentation: changes.fragmentation ?? base.fragmentation,
    bandwidthBytesPerSecond: changes.bandwidthBytesPerSecond ?? base.bandwidthBytesPerSecond,
    socketBytes: changes.socketBytes ?? base.socketBytes,
  };
  const [least, most] = latencyRange(all);
  check("latencyMs", least, 0, most);
  check("latencyMs", most, least, Number.MAX_SAFE_INTEGER);
  check("jitterMs", all.jitterMs, 0, Number.MAX_SAFE_INTEGER);
  check("loss", all.loss, 0, MOST_LOSS);
  check("reorder", all.reorder, 0, 1);
  check("duplicate", all.duplicate, 0, 1);
  check("fragmentation", all.fragmentation, 0, 1);
  check("bandwidthBytesPerSecond", all.bandwidthBytesPerSecond, 1, Infinity);
  check("socketBytes", all.socketBytes, 1, Infinity);
  return all;
}

/** The least and the most that a connection may have. */
export function latencyRange({ latencyMs }: Conditions): readonly [number, number] {
  return typeof latencyMs === "number" ? [latencyMs, latencyMs] : latencyMs;
}

function check(name: string, value: number, least: number, most: number): void {
  if (value >= least && value <= most) return;
  throw new RangeError(`Cannot set ${name}: must be between ${least} and ${most}, got ${value}`);
}
