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

  /**
   * Adds a transport, or puts it in the place of an earlier one with the same scheme.
   *
   * @throws {TypeError} It is none: no scheme, no `dial`, no `listen`, no capabilities.
   */
  register(transport: Transport): void {
    checkTransportShape(transport);
    this.#transports.set(transport.scheme, transport);
  }

  /**
   * The transport of a scheme, which is given without "://".
   *
   * @throws {TransportError} `UnsupportedProtocol`: there is none, or none on this runtime, and why;
   * it names those that can be used.
   */
  get(scheme: string): Transport {
    const transport = this.#transports.get(scheme);
    if (transport !== undefined && transport.unavailable === undefined) return transport;
    const why = transport === undefined ? "" : `${transport.unavailable}; `;
    const available = this.schemes().join(", ") || "none";
    throw new TransportError(
      "UnsupportedProtocol",
      `Cannot use the scheme ${showValue(scheme)}: ${why}available are: ${available}`,
    );
  }

  /** The schemes that can be used, in the order they were first registered. */
  schemes(): string[] {
    return this.list().filter(({ unavailable }) => unavailable === undefined)
      .map(({ scheme }) => scheme);
  }

  /** All transports, those included that can't be used on this runtime. */
  list(): Transport[] {
    return [...this.#transports.values()];
  }
}

function checkTransportShape(transport: Transport): void {
  const { scheme, capabilities, dial, listen } = transport;
  const problem = typeof scheme !== "string" || !/^[a-z][a-z0-9+.-]*$/.test(scheme)
    ? "its scheme must be a word in lower case"
    : typeof capabilities !== "object" || capabilities === null
    ? "it has no capabilities"
    : typeof dial !== "function" || typeof listen !== "function"
    ? "dial and listen must be functions"
    : undefined;
  if (problem !== undefined) throw new TypeError(`Cannot register the transport: ${problem}`);
}
