/**
 * The listening side of the contract's tests.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import type {
  DialOptions,
  Link,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
} from "../transport/transport.ts";
import { until } from "./link_recorder.ts";

/** A listener, what it accepted, and what it admitted and released. */
export class ContractListener {
  readonly links: Link[] = [];
  readonly errors: TransportError[] = [];
  readonly hosts: string[] = [];
  admitted = 0;
  released = 0;
  admits = true;
  listener!: Listener;

  get address(): string {
    return this.listener.address;
  }

  async start(
    transport: Transport,
    address: string,
    options: Partial<ListenOptions> = {},
  ): Promise<this> {
    this.listener = await transport.listen(address, {
      tls: undefined,
      keepaliveSecs: 30,
      handshakeTimeoutMs: 5000,
      admit: (host) => {
        this.hosts.push(host);
        if (!this.admits) return undefined;
        this.admitted++;
        return () => this.released++;
      },
      onLink: (link) => this.links.push(link),
      onError: (error) => this.errors.push(error),
      ...options,
    });
    return this;
  }

  /** The next accepted link. */
  async accepted(): Promise<Link> {
    let link: Link | undefined;
    await until(() => (link = this.links.shift()) !== undefined, "accepting a link");
    return link!;
  }
}

/** Options of a dial, never aborted unless told otherwise. */
export function dialOptions(tls: LinkTls | undefined, signal?: AbortSignal): DialOptions {
  return { tls, keepaliveSecs: 30, signal: signal ?? new AbortController().signal };
}
