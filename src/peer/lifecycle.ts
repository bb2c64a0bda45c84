/**
 * The life of one pooled connection as its owner sees it: an id, a state, and why it changed.
 *
 * @module
 */

import { checkChange, type ConnectionState } from "../protocol/state.ts";

/** One change of a connection's state. */
export interface StateChange {
  /** Which connection of the endpoint. */
  readonly connection: number;
  /** The state it left. */
  readonly from: ConnectionState;
  /** The state it is in now. */
  readonly to: ConnectionState;
  /** Why, for people. */
  readonly reason: string;
}

/** Who is told of changes. */
export interface LifecycleListener {
  /** A connection has changed; the node id is that of the other end, where it is known. */
  onStateChange(nodeId: string | undefined, change: StateChange): void;
}

/** The state of a connection, told to a listener at every change. */
export class Lifecycle {
  /** Unique within the endpoint. */
  readonly id: number;
  /** The node at the other end, once it is known. */
  nodeId: string | undefined;
  readonly #listener: LifecycleListener;
  #state: ConnectionState;

  /** Starts in `initial` without telling anybody. */
  constructor(
    id: number,
    initial: ConnectionState,
    nodeId: string | undefined,
    listener: LifecycleListener,
  ) {
    this.id = id;
    this.nodeId = nodeId;
    this.#listener = listener;
    this.#state = initial;
  }

  /** The state now. */
  get state(): ConnectionState {
    return this.#state;
  }

  /** Changes the state; an impossible change throws, for it is a bug. The same state is no change. */
  change(to: ConnectionState, reason: string): void {
    const from = this.#state;
    if (from === to) return;
    checkChange(from, to);
    this.#state = to;
    this.#listener.onStateChange(this.nodeId, { connection: this.id, from, to, reason });
  }
}
