/**
 * Datagrams in a simulated network: what is lost stays lost.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { formatAddress, parseAddress, parseDialAddress } from "../transport/address.ts";
import type { BindOptions, DatagramSocket, Transport } from "../transport/transport.ts";
import type { Path } from "./path.ts";
import type { SimulatedProcess } from "./process.ts";
import type { Trace } from "./trace.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What sockets ask of their network. */
export interface DatagramNetwork {
  readonly time: VirtualTime;
  readonly trace: Trace;
  /** The hosts that are switched off. */
  readonly down: ReadonlySet<string>;
  /** Who is bound, by address. */
  readonly sockets: Map<string, SimulatedSocket>;
  /** The way from one host to another. */
  path(from: string, to: string): Path;
}

const SCHEME = "udp";
/** The longest packet, 65,507 bytes, without what stands before the message in it. */
const MAX_MESSAGE_BYTES = 65_480;
/** Packets that a kernel keeps for a process that stands still. */
const MAX_HELD = 256;
/** Ports of sockets that ask for a free one. */
const FIRST_PORT = 10_000;

/** The transport of `udp://` addresses for one process. */
export function simulatedDatagrams(network: DatagramNetwork, process: SimulatedProcess): Transport {
  const noLink = (address: string) =>
    Promise.reject(
      new TransportError("UnsupportedProtocol", `Cannot use ${address}: datagrams are no link`),
    );
  return {
    scheme: SCHEME,
    priority: 10,
    capabilities: {
      reliable: false,
      ordered: false,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: MAX_MESSAGE_BYTES,
    },
    dial: noLink,
    listen: noLink,
    bind: (address, options) => bind(network, process, address, options),
    resolve: (address) => {
      const { host, port } = parseDialAddress(address);
      const remote = formatAddress(SCHEME, host, port);
      return Promise.resolve({ remote, local: formatAddress(SCHEME, process.host, 0) });
    },
  };
}

function bind(
  network: DatagramNetwork,
  process: SimulatedProcess,
  text: string,
  options: BindOptions,
): Promise<DatagramSocket> {
  const { host, port } = parseAddress(text);
  const address = formatAddress(SCHEME, host, port === 0 ? freePort(network, host) : port);
  const inUse = network.sockets.get(address)?.alive === true;
  if (inUse || host !== process.host) {
    const cause = new Error(inUse ? "address in use" : `it is not of the host ${process.host}`);
    const message = `Cannot listen on ${address}: ${cause.message}`;
    return Promise.reject(new TransportError("ConnectionFailed", message, { cause }));
  }
  const socket = new SimulatedSocket(network, process, address, options);
  network.sockets.set(address, socket);
  return Promise.resolve(socket);
}

function freePort({ sockets }: DatagramNetwork, host: string): number {
  let port = FIRST_PORT;
  while (sockets.has(formatAddress(SCHEME, host, port))) port++;
  return port;
}

/** A bound socket. */
export class SimulatedSocket implements DatagramSocket {
  readonly address: string;
  readonly #network: DatagramNetwork;
  readonly #process: SimulatedProcess;
  readonly #options: BindOptions;
  /** Not out yet, for want of bandwidth. */
  #queued = 0;
  #queuedBytes = 0;
  #wasFull = false;
  /** Arrived while the process stands still. */
  #held = 0;
  #closed = false;

  constructor(
    network: DatagramNetwork,
    process: SimulatedProcess,
    address: string,
    options: BindOptions,
  ) {
    this.#network = network;
    this.#process = process;
    this.address = address;
    this.#options = options;
  }

  /** Whether somebody hears what arrives. */
  get alive(): boolean {
    return this.#process.alive && !this.#closed;
  }

  send(packet: Uint8Array, to: string): boolean {
    if (!this.alive) return false;
    const { maxQueued, maxQueuedBytes } = this.#options;
    const tooMany = this.#queued >= maxQueued || this.#queuedBytes + packet.length > maxQueuedBytes;
    if (tooMany && this.#queued > 0) {
      this.#wasFull = true;
      return false;
    }
    const { time, trace } = this.#network;
    const path = this.#network.path(this.#process.host, parseAddress(to).host);
    const { outAt, arrivals } = path.datagram(time.now(), packet.length);
    trace.record("packet", this.address, to, packet.length, arrivals.length);
    this.#queue(packet.length, outAt);
    for (const at of arrivals) {
      time.setTimer(at - time.now(), () => this.#arrive(path, packet, to));
    }
    return true;
  }

  close(): Promise<void> {
    this.#closed = true;
    const { sockets } = this.#network;
    if (sockets.get(this.address) === this) sockets.delete(this.address);
    return Promise.resolve();
  }

  #queue(bytes: number, outAt: number): void {
    const now = this.#network.time.now();
    if (outAt <= now) return;
    this.#queued++;
    this.#queuedBytes += bytes;
    this.#network.time.setTimer(outAt - now, () => {
      this.#queued--;
      this.#queuedBytes -= bytes;
      if (!this.#wasFull || this.#queued * 2 > this.#options.maxQueued) return;
      this.#wasFull = false;
      this.#process.turn(() => this.#closed || this.#options.onDrain());
    });
  }

  #arrive(path: Path, packet: Uint8Array, to: string): void {
    const { down, sockets } = this.#network;
    const target = sockets.get(to);
    const lost = path.blocked || down.has(this.#process.host) || target?.alive !== true ||
      down.has(target.#process.host);
    // A copy, as each arrival of a packet is one of its own.
    if (!lost) target.#take(packet.slice(), this.address);
  }

  #take(packet: Uint8Array, from: string): void {
    if (this.#held >= MAX_HELD) return;
    this.#held++;
    this.#process.turn(() => {
      this.#held--;
      if (!this.#closed) this.#options.onPacket(packet, from);
    });
  }
}
