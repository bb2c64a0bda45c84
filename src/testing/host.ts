/**
 * A machine in a simulated network.
 *
 * @module
 */

import type { Environment } from "../runtime/environment.ts";
import type { ListenOptions, Transport } from "../transport/transport.ts";
import type { SimulatedLink } from "./link.ts";
import { SimulatedProcess } from "./process.ts";
import { Random } from "./random.ts";
import type { Trace } from "./trace.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What a host asks of its network. */
export interface HostNetwork {
  readonly seed: number;
  readonly time: VirtualTime;
  readonly trace: Trace;
  /** The hosts that are switched off. */
  readonly down: Set<string>;
  /** The transport of one process. */
  transport(host: SimulatedHost, process: SimulatedProcess): Transport;
  /** The same for datagrams. */
  datagrams(process: SimulatedProcess): Transport;
  /** A host is up again: what waits for it goes on. */
  retry(): void;
}

/** How a process ends. */
export interface CrashOptions {
  /**
   * Whether the whole machine goes down, as when its power fails: nobody is told, and what is sent
   * to it gets no answer until {@linkcode SimulatedHost.restart}. Otherwise the process dies as with
   * `kill -9`: its peers see their connections reset.
   * @default {false}
   */
  silent?: boolean;
}

/** What listens on a host. */
export interface HostListener {
  readonly address: string;
  readonly options: ListenOptions;
  readonly process: SimulatedProcess;
  /** Connections that the kernel has taken while the process stands still. */
  readonly backlog: Set<SimulatedLink>;
}

/**
 * A machine in a {@linkcode SimulatedNetwork} with one process on it, which runs an endpoint: hand
 * {@linkcode environment} and {@linkcode transport} to it. Made by {@linkcode SimulatedNetwork.host}.
 */
export class SimulatedHost {
  /** The name of the machine. */
  readonly name: string;
  /** What its endpoint listens on and others dial: "memory://name". */
  readonly address: string;
  /** @internal By address. */
  readonly listeners: Map<string, HostListener> = new Map();
  readonly #network: HostNetwork;
  #process: SimulatedProcess;
  #transport: Transport;
  #datagrams: Transport;
  #starts = 0;
  #clockOffsetMs = 0;

  /** @internal */
  constructor(network: HostNetwork, name: string) {
    this.#network = network;
    this.name = name;
    this.address = `memory://${name}`;
    this.#process = this.#newProcess();
    this.#transport = network.transport(this, this.#process);
    this.#datagrams = network.datagrams(this.#process);
  }

  /** Clocks, timers and randomness of the process. */
  get environment(): Environment {
    return this.#process.environment;
  }

  /** The transport of the process, for `memory://` addresses. */
  get transport(): Transport {
    return this.#transport;
  }

  /** The transport of the process for `udp://name:port` addresses: best-effort messages. */
  get datagrams(): Transport {
    return this.#datagrams;
  }

  /** Whether its process runs or is paused, and has not crashed. */
  get running(): boolean {
    return this.#process.alive;
  }

  /** Whether its process stands still. */
  get paused(): boolean {
    return this.#process.paused;
  }

  /** Whether the whole machine is off: see {@linkcode CrashOptions.silent}. */
  get down(): boolean {
    return this.#network.down.has(this.name);
  }

  /** Timers that the process has set; 0 once everything in it is closed. */
  get pendingTimers(): number {
    return this.#process.pendingTimers;
  }

  /** Connections of the process; 0 once everything in it is closed. */
  get connections(): number {
    return this.#process.links.size;
  }

  /** What its wall clock is ahead of the others. */
  get clockOffsetMs(): number {
    return this.#clockOffsetMs;
  }

  /**
   * Stops the process, as a long garbage collection or a suspended virtual machine does: no timer
   * fires and nothing is read, while its connections stand and fill.
   */
  pause(): void {
    this.#note("pause");
    this.#process.pause();
  }

  /** Lets the process go on. Timers that are overdue fire at once, and what has arrived is read. */
  resume(): void {
    this.#note("resume");
    this.#process.resume();
  }

  /**
   * Kills the process: its timers never fire, its connections are gone and promises of its endpoint
   * stay pending. Call it between two turns, not in a callback of that process.
   */
  crash({ silent = false }: CrashOptions = {}): void {
    if (!this.#process.alive) return;
    this.#note(silent ? "power off" : "crash");
    if (silent) this.#network.down.add(this.name);
    this.#end(silent);
  }

  /**
   * Starts a new process, with a new {@linkcode environment} and {@linkcode transport}: make the
   * next endpoint with those. One that still runs is killed.
   */
  restart(): void {
    if (this.#process.alive) this.#end(false);
    this.#note("restart");
    this.#network.down.delete(this.name);
    this.#process = this.#newProcess();
    this.#transport = this.#network.transport(this, this.#process);
    this.#datagrams = this.#network.datagrams(this.#process);
    this.#network.retry();
  }

  /** Sets the wall clock forward, or back. Timers do not notice: theirs is a monotonic clock. */
  jumpClock(byMs: number): void {
    this.#note("clock", byMs);
    this.#clockOffsetMs += byMs;
  }

  /** Resolves after so many milliseconds, never if the process dies before. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#process.environment.setTimer(ms, resolve));
  }

  #newProcess(): SimulatedProcess {
    const random = new Random(this.#network.seed, `${this.name} ${this.#starts++}`);
    return new SimulatedProcess(
      this.name,
      this.#network.time,
      random,
      () => this.#clockOffsetMs,
    );
  }

  #end(silent: boolean): void {
    this.#process.kill(silent);
    this.listeners.clear();
  }

  #note(what: string, ...details: number[]): void {
    this.#network.trace.record(what, this.name, ...details);
  }
}
