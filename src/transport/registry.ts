/**
 * The transports of one endpoint, by the scheme of the addresses they serve.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { showValue } from "../show_value.ts";
import type { Transport } from "./transport.ts";

/** Finds the transport of an address. */
export class TransportRegistry {
  readonly #transports = new Map<string, Transport>();

  /** Adds a transport, or puts it in the place of an earlier one with the same scheme. */
  register(transport: Transport): void {
    this.#transports.set(transport.scheme, transport);
  }

  /**
   * The transport of a scheme, which is given without "://".
   *
   * @throws {TransportError} `UnsupportedProtocol`, naming those that are there.
   */
  get(scheme: string): Transport {
    const transport = this.#transports.get(scheme);
    if (transport !== undefined) return transport;
    const available = this.schemes().join(", ") || "none";
    throw new TransportError(
      "UnsupportedProtocol",
      `Cannot use the scheme ${showValue(scheme)}: available are: ${available}`,
    );
  }

  /** The schemes that have a transport, in the order they were first registered. */
  schemes(): string[] {
    return [...this.#transports.keys()];
  }
}
