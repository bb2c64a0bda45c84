/**
 * Accepted connections until their handshake is complete.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import type { Rejection } from "../protocol/connection.ts";
import type { Negotiated } from "../protocol/handshake.ts";
import type { OfferedSession } from "../protocol/handshaker.ts";
import type { Driver, DriverOwner } from "./driver.ts";
import type { PeerIdentity } from "./identity.ts";
import type { Lifecycle } from "./lifecycle.ts";

/** Who decides about accepted connections. */
export interface AcceptedHost {
  /** What the certificate of the other side proves; throws where it does not fit. */
  identify(driver: Driver, nodeId: string): PeerIdentity | undefined;
  /** Whether a node that is who it says may come in. */
  judge(negotiated: Negotiated, identity: PeerIdentity | undefined): Rejection | undefined;
  /** Which session it gets. */
  offerSession(negotiated: Negotiated): OfferedSession;
  /** It is in. */
  established(driver: Driver, lifecycle: Lifecycle, identity: PeerIdentity | undefined): void;
  /** It is not, and the connection is gone. */
  notEstablished(driver: Driver, lifecycle: Lifecycle, error: TransportError | undefined): void;
}

/** Owns an accepted driver until its handshake is complete. */
export class Accepted implements DriverOwner {
  readonly #host: AcceptedHost;
  readonly #lifecycle: Lifecycle;
  #identity: PeerIdentity | undefined;

  /** `lifecycle` is in state "handshaking". */
  constructor(host: AcceptedHost, lifecycle: Lifecycle) {
    this.#host = host;
    this.#lifecycle = lifecycle;
  }

  /** What the certificate of the other side proved. */
  get identity(): PeerIdentity | undefined {
    return this.#identity;
  }

  onIdentity(driver: Driver, nodeId: string): Rejection | undefined {
    try {
      this.#identity = this.#host.identify(driver, nodeId);
      return undefined;
    } catch (error) {
      const typed = error as TransportError;
      return typed.code === "ClientCertificateRequired"
        ? { code: "IDENTITY_REQUIRED", reason: "a client certificate is required", error: typed }
        : { code: "AUTH_FAILED", reason: "the certificate does not fit", error: typed };
    }
  }

  onHello(_: Driver, negotiated: Negotiated): Rejection | undefined {
    return this.#host.judge(negotiated, this.#identity);
  }

  offerSession(negotiated: Negotiated): OfferedSession {
    return this.#host.offerSession(negotiated);
  }

  onEstablished(driver: Driver): void {
    this.#host.established(driver, this.#lifecycle, this.#identity);
  }

  onClosed(driver: Driver, error: TransportError | undefined): void {
    this.#host.notEstablished(driver, this.#lifecycle, error);
  }

  wantsMessage(): boolean {
    return true;
  }

  onMessage(): void {}
  onWritable(): void {}
  onFlushed(): void {}
  onSilent(): void {}
  onPeerEnd(): void {}
}

/** Owns drivers that come too late. */
export const REFUSED: DriverOwner = {
  onIdentity: () => undefined,
  onHello: () => ({ code: "SHUTTING_DOWN", reason: "the endpoint is closing" }),
  onEstablished() {},
  wantsMessage: () => true,
  onMessage() {},
  onWritable() {},
  onFlushed() {},
  onSilent() {},
  onPeerEnd() {},
  onClosed() {},
};
