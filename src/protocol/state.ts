/**
 * The life of a connection: its states and which may follow which.
 *
 * @module
 */

/**
 * Where a connection is in its life. An "active" one reads and writes; an "idle" one may, and has not
 * for a while; a "draining" one sends what it was given and takes nothing new; "failed" may be dialed
 * again, "closed" is the end.
 */
export type ConnectionState =
  | "connecting"
  | "handshaking"
  | "active"
  | "idle"
  | "reconnecting"
  | "draining"
  | "failed"
  | "closed";

/** state -> the states that may follow it. */
const CHANGES: { readonly [S in ConnectionState]: readonly ConnectionState[] } = {
  connecting: ["handshaking", "reconnecting", "failed", "closed"],
  handshaking: ["active", "reconnecting", "failed", "closed"],
  active: ["idle", "draining", "reconnecting", "failed", "closed"],
  idle: ["active", "draining", "reconnecting", "failed", "closed"],
  draining: ["reconnecting", "failed", "closed"],
  reconnecting: ["connecting", "failed", "closed"],
  failed: ["connecting", "closed"],
  closed: [],
};

/** Whether a connection may go from one state to the other in one step. No state follows itself. */
export function canChange(from: ConnectionState, to: ConnectionState): boolean {
  return CHANGES[from].includes(to);
}

/**
 * Refuses a change that can't be.
 *
 * @throws {Error} If `to` can't follow `from`: a bug of the caller, never bad input.
 */
export function checkChange(from: ConnectionState, to: ConnectionState): void {
  if (canChange(from, to)) return;
  throw new Error(`Cannot change a connection from ${from} to ${to}: impossible change`);
}

/** The state of one connection. */
export class StateMachine {
  #state: ConnectionState;

  /** Starts in `initial`: "connecting" where nothing else is said. */
  constructor(initial: ConnectionState = "connecting") {
    this.#state = initial;
  }

  /** The state now. */
  get state(): ConnectionState {
    return this.#state;
  }

  /**
   * Goes to another state.
   *
   * @throws {Error} If that can't follow the present one: a bug of the caller, never bad input.
   * The state stays what it was.
   */
  change(to: ConnectionState): void {
    checkChange(this.#state, to);
    this.#state = to;
  }
}
