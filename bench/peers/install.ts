/** The packages of this folder and the server of NATS: what is there, and what is missing. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import net from "node:net";
import process from "node:process";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("./package/", import.meta.url));
/** How long a broker may take to listen. */
const BROKER_START_MS = 5000;
const RETRY_MS = 20;

/** Installs the pinned packages if they are missing; says why it can't. */
export function installPackages(): string | undefined {
  // npm writes this file last.
  if (existsSync(`${FOLDER}node_modules/.package-lock.json`)) return undefined;
  console.log("bench/peers/package/node_modules is missing: npm ci");
  const { status, stderr, error } = spawnSync(
    "npm",
    // All libraries work without the scripts of packages.
    ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
    { cwd: FOLDER, encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] },
  );
  if (status === 0) return undefined;
  const lines = (stderr ?? "").split("\n").map((line) => line.replace(/^npm error ?/, "").trim());
  const line = lines.find((line) => line !== "" && !line.startsWith("code "));
  return `npm ci failed: ${error?.message ?? line ?? `status ${status}`}`;
}

/** The pinned version of a package. */
export function versionOf(name: string): string {
  const lock = JSON.parse(readFileSync(`${FOLDER}package-lock.json`, "utf8"));
  return lock.packages[`node_modules/${name}`]?.version ?? "of unknown version";
}

/** A NATS server of its own for this run. */
export class Broker {
  /** Where clients connect. */
  readonly address: string;
  /** What it calls itself. */
  readonly version: string;
  readonly #child: ChildProcess;

  private constructor(address: string, version: string, child: ChildProcess) {
    this.address = address;
    this.version = version;
    this.#child = child;
  }

  /** Starts `nats-server` with its defaults, from NATS_SERVER or where packages put it. */
  static async start(): Promise<Broker> {
    const path = [process.env.NATS_SERVER ?? "", "nats-server", "/usr/sbin/nats-server"]
      .find((path) => path !== "" && spawnSync(path, ["--version"]).status === 0);
    if (path === undefined) {
      throw new Error(
        "there is no nats-server on PATH: install Debian's package nats-server, " +
          "or name the file in NATS_SERVER",
      );
    }
    const version = spawnSync(path, ["--version"], { encoding: "utf8" }).stdout;
    const port = await freePort();
    const child = spawn(path, ["--addr", "127.0.0.1", "--port", String(port)], { stdio: "ignore" });
    const broker = new Broker(
      `127.0.0.1:${port}`,
      /\d+\.\d+\.\d+/.exec(version)?.[0] ?? "of unknown version",
      child,
    );
    for (let waitedMs = 0; !await listens(port); waitedMs += RETRY_MS) {
      if (waitedMs >= BROKER_START_MS || child.exitCode !== null) {
        broker.stop();
        throw new Error("nats-server does not listen");
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    return broker;
  }

  /** Ends it. */
  stop(): void {
    this.#child.kill("SIGKILL");
  }
}

/** A port that nobody listens on, for who must be told one. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}
