/**
 * The course of the demo, seen from the process that runs it.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";
import { join } from "node:path";
import type { EndpointOptions, TlsOptions } from "../../mod.ts";
import type { RuntimeName } from "../../tools/runtimes.ts";
import { nodeCertificates } from "./certificates.ts";
import type { PeerResult, Report } from "./control.ts";
import { type FileEntry, shown } from "./files.ts";
import { NodeProcess } from "./node_process.ts";
import { Progress, type Screen } from "./progress.ts";
import { rate, ratio, size, table } from "./table.ts";
import { type Verdict, verify } from "./verify.ts";

/** Who takes part, and on what. */
const NODES: Readonly<Record<string, RuntimeName>> = { node1: "deno", node2: "deno", node3: "bun" };
const SOURCE = "node1";
const TARGETS = ["node2", "node3"];
/** The one that is killed. */
const VICTIM = "node2";
/** The port of a killed node may be busy for a moment; then it is tried again. */
const LISTEN_ATTEMPTS = 20;
const LISTEN_AGAIN_MS = 100;

/** What the demo works on. */
export interface DemoConfig {
  /** The folder the files are in. */
  readonly source: string;
  readonly files: readonly FileEntry[];
  /** A folder of its own for certificates and copies. */
  readonly place: string;
  readonly screen: Screen;
}

/** One run of the demo. */
export class Demo {
  readonly #config: DemoConfig;
  readonly #progress: Progress;
  readonly #nodes = new Map<string, NodeProcess>();
  readonly #addresses = new Map<string, string>();
  readonly #shares = new Map<string, number>();
  readonly #totalBytes: number;
  readonly #failure = Promise.withResolvers<never>();
  readonly #replicated = Promise.withResolvers<readonly PeerResult[]>();
  #tls = new Map<string, TlsOptions>();
  #over = false;

  /** Prepares a run. */
  constructor(config: DemoConfig) {
    this.#config = config;
    this.#progress = new Progress(config.screen, Object.keys(NODES));
    this.#totalBytes = config.files.reduce((sum, file) => sum + file.size, 0);
    this.#failure.promise.catch(() => {});
  }

  /** Does it all; returns what is wrong with the copies. */
  run(): Promise<string[]> {
    return Promise.race([this.#run(), this.#failure.promise]);
  }

  /** Ends `run` with an error. */
  fail(error: Error): void {
    if (!this.#over) this.#progress.end();
    this.#over = true;
    this.#failure.reject(error);
  }

  /** Ends every process there still is. */
  async killAll(): Promise<void> {
    this.#over = true;
    await Promise.all([...this.#nodes.values()].map((node) => node.kill()));
  }

  async #run(): Promise<string[]> {
    const { source, files, place } = this.#config;
    const log = (line: string) => this.#progress.log(line);
    log(`replicating ${files.length} files, ${size(this.#totalBytes)}, from ${shown(source)}`);
    this.#tls = await nodeCertificates(join(place, "certificates"), Object.keys(NODES));
    log(`made a CA and certificates for ${Object.keys(NODES).join(", ")}`);
    await Promise.all(Object.keys(NODES).map((name) => this.#start(name)));
    await this.#nodes.get(SOURCE)!.tell({
      do: "replicate",
      folder: source,
      files,
      peers: TARGETS.map((nodeId) => ({ nodeId, address: this.#addresses.get(nodeId)! })),
      pauseFor: VICTIM,
    });
    const results = await this.#replicated.promise;
    this.#progress.end();
    this.#over = true;
    await Promise.all([...this.#nodes.values()].map((node) => node.close()));
    return await this.#conclude(results);
  }

  /** Starts a node, or starts it again where it listened before. */
  async #start(name: string): Promise<void> {
    const runtime = NODES[name]!;
    const node = new NodeProcess(name, runtime, {
      onReport: (report) => this.#heard(name, report),
      onFailure: (error) => this.fail(error),
    });
    this.#nodes.set(name, node);
    if (this.#over) return void node.kill();
    const attempts = this.#addresses.has(name) ? LISTEN_ATTEMPTS : 1;
    const [address] = await listen(node, this.#options(name), attempts);
    if (address !== undefined) this.#addresses.set(name, address);
    if (name !== SOURCE) {
      const { folder, incoming } = this.#foldersOf(name);
      await node.tell({ do: "receive", from: SOURCE, folder, incoming });
    }
    const where = address === undefined ? "" : `, ${address}`;
    this.#progress.log(`${name} is up (${runtime}${where}, strict mode, mutual TLS)`);
  }

  #options(name: string): EndpointOptions {
    return {
      nodeId: name,
      security: "strict",
      tls: this.#tls.get(name)!,
      // Less waits in memory than the default allows, so that progress is what was really sent.
      maxMessageSize: 1024 * 1024,
      maxPendingBytes: 4 * 1024 * 1024,
      reconnect: { initialBackoffMs: 100, maxBackoffMs: 1000 },
      ...(name === SOURCE ? {} : { listen: this.#addresses.get(name) ?? "tcp://127.0.0.1:0" }),
    };
  }

  #heard(name: string, report: Report): void {
    switch (report.event) {
      case "progress":
        return this.#showProgress(report.peer, report.sentBytes, report.acknowledgedFiles);
      case "halfway":
        return void this.#killAndRestart(report.peer).catch((error) => this.fail(error));
      case "replicated":
        return this.#replicated.resolve(report.results);
      case "warning":
        return this.#progress.log(`${name} warns: ${shown(report.message)}`);
      case "peerup":
      case "peerdown":
        if (name !== SOURCE || this.#over) return;
        return this.#progress.log(
          `${name} ${report.event === "peerup" ? "is connected to" : "has lost"} ${report.peer}`,
        );
    }
  }

  #showProgress(peer: string, sentBytes: number, acknowledgedFiles: number): void {
    const { files } = this.#config;
    const bytes = this.#totalBytes === 0 ? 1 : sentBytes / this.#totalBytes;
    // The last percent is the last acknowledgement's.
    const whole = acknowledgedFiles === files.length;
    const share = whole ? 1 : Math.min(bytes, 0.99);
    const note = `${acknowledgedFiles}/${files.length} files, ${size(sentBytes)}`;
    this.#shares.set(peer, share);
    this.#progress.set(peer, share, whole ? `${note}, complete` : note);
    const sum = TARGETS.reduce((sum, name) => sum + (this.#shares.get(name) ?? 0), 0);
    this.#progress.set(SOURCE, sum / TARGETS.length, "sent to all");
  }

  async #killAndRestart(name: string): Promise<void> {
    this.#progress.log(`half of the bytes are sent to ${name}: killing it with SIGKILL`);
    await this.#nodes.get(name)!.kill();
    await this.#start(name);
  }

  #foldersOf(name: string): { folder: string; incoming: string } {
    const place = join(this.#config.place, name);
    return { folder: join(place, "files"), incoming: join(place, "incoming") };
  }

  async #conclude(results: readonly PeerResult[]): Promise<string[]> {
    const { source, files } = this.#config;
    const problems: string[] = [];
    const rows = [sourceRow(files.length, this.#totalBytes, results)];
    for (const result of results) {
      const name = result.peer;
      const verdict = await verify(this.#foldersOf(name).folder, files, source);
      rows.push(targetRow(result, verdict, files.length));
      problems.push(...verdict.problems.map((problem) => `${name}: ${problem}`));
    }
    const victim = results.find(({ peer }) => peer === VICTIM)!;
    this.#config.screen.write(
      `\n${table([HEADING, ...rows])}\n\n` +
        `Files sent to ${VICTIM} again after the kill: ${victim.filesSentAgain}; ` +
        `messages reported undelivered: ${victim.undelivered}\n`,
    );
    return problems;
  }
}

const HEADING = [
  "node",
  "runtime",
  "files",
  "bytes",
  "SHA-256 matches",
  "reconnections",
  "compression ratio",
  "throughput",
];

function sourceRow(files: number, bytes: number, results: readonly PeerResult[]): string[] {
  const sum = (of: (result: PeerResult) => number) => results.reduce((n, r) => n + of(r), 0);
  return [
    SOURCE,
    NODES[SOURCE]!,
    String(files),
    size(bytes),
    "the source",
    String(sum((result) => result.reconnections)),
    ratio(sum((result) => result.payloadBytes), sum((result) => result.wireBytes)),
    rate(bytes * results.length, Math.max(...results.map((result) => result.seconds))),
  ];
}

function targetRow(result: PeerResult, verdict: Verdict, expected: number): string[] {
  return [
    result.peer,
    NODES[result.peer]!,
    String(verdict.files),
    size(verdict.bytes),
    `${verdict.matches} of ${expected}`,
    String(result.reconnections),
    ratio(result.payloadBytes, result.wireBytes),
    rate(verdict.bytes, result.seconds),
  ];
}

async function listen(
  node: NodeProcess,
  options: EndpointOptions,
  attempts: number,
): Promise<readonly string[]> {
  for (let left = attempts - 1;; left--) {
    try {
      return await node.tell({ do: "start", options });
    } catch (error) {
      if (left === 0) throw error;
      await delay(LISTEN_AGAIN_MS);
    }
  }
}
