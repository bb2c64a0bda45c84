/**
 * The events of an endpoint: `CustomEvent`s with typed details.
 *
 * @module
 */

import type { TransportError } from "./errors.ts";
import type { PeerIdentity } from "./peer/identity.ts";
import type { PeerHealth } from "./peer/peer.ts";
import type { ConnectionState } from "./protocol/state.ts";
import type { LaneName } from "./protocol/v3/types.ts";

/** A peer has its first connection. */
export interface PeerUpDetail {
  /** Who. */
  readonly nodeId: string;
  /** What its certificate proved; undefined where the security mode verifies no name. */
  readonly identity: PeerIdentity | undefined;
}

/** A peer has lost its last connection. */
export interface PeerDownDetail {
  /** Who. */
  readonly nodeId: string;
  /** Why, where it did not end in order. */
  readonly error: TransportError | undefined;
}

/** A peer answers, is late with its answer, or has no connection. */
export interface HealthChangeDetail {
  /** Who. */
  readonly nodeId: string;
  /** How it is now. */
  readonly health: PeerHealth;
  /** How it was. */
  readonly previous: PeerHealth;
}

/** A connection changed its state. */
export interface StateChangeDetail {
  /** Whose connection; undefined while an accepted one has not said who it is. */
  readonly nodeId: string | undefined;
  /** Which connection of this endpoint. */
  readonly connection: number;
  /** The state it left. */
  readonly from: ConnectionState;
  /** The state it is in now. */
  readonly to: ConnectionState;
  /** Why, for people. */
  readonly reason: string;
}

/** An accepted message will not be delivered, or nobody knows. One event per message. */
export interface UndeliveredDetail<T = Uint8Array> {
  /** Who should have got it. */
  readonly nodeId: string;
  /** The message. */
  readonly payload: T;
  /** The lane it was sent in. */
  readonly lane: LaneName;
  /** Its topic. */
  readonly topic: string | undefined;
  /** Why. */
  readonly error: TransportError;
  /** `"unsent"`: it never left. `"unknown"`: it was on its way, and nobody knows whether it arrived. */
  readonly fate: "unsent" | "unknown";
}

/** Something that somebody should look at. */
export interface WarningDetail {
  /** For people. */
  readonly message: string;
  /** The failure behind it, where there is one. */
  readonly error: TransportError | undefined;
  /** Whom it concerns, where that is known. */
  readonly nodeId: string | undefined;
  /** The remote address, where that is known. */
  readonly address: string | undefined;
}

/** Event name to the detail of its `CustomEvent`. */
export interface EndpointEventMap<T = Uint8Array> {
  /** A peer has its first connection. */
  peerup: PeerUpDetail;
  /** A peer has lost its last connection. */
  peerdown: PeerDownDetail;
  /** A peer is up, suspect or down. */
  healthchange: HealthChangeDetail;
  /** A connection changed its state. */
  statechange: StateChangeDetail;
  /** An accepted message will not be delivered, or nobody knows. */
  undelivered: UndeliveredDetail<T>;
  /** Something that somebody should look at. */
  warning: WarningDetail;
}

/** A listener for one event. */
export type EndpointListener<D> =
  | ((event: CustomEvent<D>) => void)
  | { handleEvent(event: CustomEvent<D>): void };

/**
 * An `EventTarget` with typed events, whose listeners can't bring the process down: what one throws
 * goes to `onListenerError`, with the type of the event.
 */
export class TypedEventTarget<M> extends EventTarget {
  readonly #wrapped = new WeakMap<object, (event: Event) => void>();
  readonly #onListenerError: (error: unknown, type: string) => void;

  /** `onListenerError` gets what a listener throws. */
  constructor(onListenerError: (error: unknown, type: string) => void) {
    super();
    this.#onListenerError = onListenerError;
  }

  /** Calls `listener` at every event of this type. */
  override addEventListener<K extends keyof M & string>(
    type: K,
    listener: EndpointListener<M[K]> | null,
    options?: AddEventListenerOptions | boolean,
  ): void {
    super.addEventListener(type, listener === null ? null : this.#wrap(listener), options);
  }

  /** Takes a listener away again. */
  override removeEventListener<K extends keyof M & string>(
    type: K,
    listener: EndpointListener<M[K]> | null,
    options?: EventListenerOptions | boolean,
  ): void {
    super.removeEventListener(type, listener === null ? null : this.#wrap(listener), options);
  }

  /** Calls the listeners of an event. */
  protected emit<K extends keyof M & string>(type: K, detail: M[K]): void {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #wrap<D>(listener: EndpointListener<D>): (event: Event) => void {
    let wrapped = this.#wrapped.get(listener);
    if (wrapped === undefined) {
      wrapped = (event) => {
        const failed = (error: unknown) => this.#onListenerError(error, event.type);
        try {
          const custom = event as CustomEvent<D>;
          const result: unknown = typeof listener === "function"
            ? listener.call(this, custom)
            : listener.handleEvent(custom);
          if (result instanceof Promise) result.catch(failed);
        } catch (error) {
          failed(error);
        }
      };
      this.#wrapped.set(listener, wrapped);
    }
    return wrapped;
  }
}
