/**
 * The life of one pooled connection as its owner sees it: an id, a state, and why it changed.
 *
 * @module
 */

import { type ConnectionState, StateMachine } from "../protocol/state.ts";

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

/** The state of a connection, told to a listener at every change. */
export class Lifecycle {
  /** Unique within the endpoint. */
  readonly id: number;
  readonly #machine: StateMachine;
  readonly #onChange: (change: StateChange) => void;

  /** Starts in `initial` without telling anybody. */
  constructor(id: number, initial: ConnectionState, onChange: (change: StateChange) => void) {
    this.id = id;
    this.#machine = new StateMachine(initial);
    this.#onChange = onChange;
  }

  /** The state now. */
  get state(): ConnectionState {
    return this.#machine.state;
  }

  /** Changes the state; an impossible change throws, for it is a bug. The same state is no change. */
  change(to: ConnectionState, reason: string): void {
    const from = this.#machine.state;
    if (from === to) return;
    this.#machine.change(to);
    this.#onChange({ connection: this.id, from, to, reason });
  }
}
