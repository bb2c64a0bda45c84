/**
 * A file copier with a progress bar, over a stream in the bulk lane. Two processes:
 *
 *     deno run -A examples/file_copy.ts receive ./inbox 127.0.0.1:9100
 *     deno run -A examples/file_copy.ts send ./film.mkv 127.0.0.1:9100
 *
 * Without arguments it copies a generated file between two endpoints of its own. The sender closes
 * its half of the stream behind the last byte and then reads the receiver's answer, the SHA-256 of
 * what arrived; whoever fails resets the stream, and the other one learns why.
 *
 * @module
 */

import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, readFile, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { Endpoint, HandlerError, RemoteError, type TransportStream } from "../mod.ts";

const RECEIVER = "receiver";
const TOPIC = "file";
const BLOCK_BYTES = 256 * 1024;
const DEMO_BLOCKS = 128;
const BAR_CELLS = 30;
const MEBIBYTE = 1024 * 1024;

// For the real thing: certificates, and strict mode.
const security = "development";

/** What the sender says of its file when it opens the stream. */
interface Offer {
  readonly name: string;
  readonly size: number;
}

async function sendFile(endpoint: Endpoint, path: string, name: string): Promise<string> {
  const { size } = await stat(path);
  const offer: Offer = { name, size };
  const stream = await endpoint.openStream(RECEIVER, {
    topic: TOPIC,
    lane: "bulk",
    payload: new TextEncoder().encode(JSON.stringify(offer)),
  });
  const progress = new Progress(name, size);
  const hash = createHash("sha256");
  const writer = stream.writable.getWriter();
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: BLOCK_BYTES })) {
      hash.update(chunk);
      // Waits while the receiver's disk is slower than ours.
      await writer.write(chunk);
      progress.add(chunk.length);
    }
    // Half-close: nothing more from us, and now the answer.
    await writer.close();
    const theirs = await new Response(stream.readable).text();
    if (theirs !== hash.digest("hex")) throw new Error(`${name} arrived with another SHA-256`);
    return theirs;
  } catch (error) {
    // Nothing happens where the receiver has reset it already.
    stream.reset("SEND_FAILED", "the sender could not read the file");
    throw error;
  } finally {
    progress.end();
  }
}

/** Takes every file that is sent into a folder. What it throws resets the stream. */
function receiveFiles(endpoint: Endpoint, folder: string): void {
  endpoint.onStream(TOPIC, async (stream) => {
    const { name, size } = readOffer(stream.payload);
    const part = join(folder, `${name}.${randomBytes(4).toString("hex")}.part`);
    try {
      const digest = await store(stream, part, size);
      await rename(part, join(folder, name));
      const writer = stream.writable.getWriter();
      await writer.write(new TextEncoder().encode(digest));
      await writer.close();
      console.log(`received ${name} from ${stream.nodeId}: ${size} bytes`);
    } finally {
      await rm(part, { force: true });
    }
  });
}

async function store(stream: TransportStream, path: string, size: number): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "w");
  let received = 0;
  try {
    for await (const chunk of stream.readable) {
      received += chunk.length;
      if (received > size) throw new HandlerError("TOO_LONG", "more than was announced");
      hash.update(chunk);
      await file.writeFile(chunk);
    }
  } finally {
    await file.close();
  }
  if (received < size) throw new HandlerError("TOO_SHORT", "less than was announced");
  return hash.digest("hex");
}

/** A name from another node is not to be trusted: it must not lead out of the folder. */
function readOffer(payload: Uint8Array): Offer {
  const { name, size } = JSON.parse(new TextDecoder().decode(payload));
  if (typeof name !== "string" || !/^[\w][\w. -]{0,100}$/.test(name)) {
    throw new HandlerError("BAD_NAME", "a file name has letters, digits, '.', '-', '_', ' '");
  }
  if (!Number.isSafeInteger(size) || size < 0) throw new HandlerError("BAD_SIZE", "no size");
  return { name, size };
}

/** A bar that is drawn again in place on a terminal, or a line for each quarter elsewhere. */
class Progress {
  readonly #name: string;
  readonly #size: number;
  readonly #begun = performance.now();
  #bytes = 0;
  #shown = -1;

  constructor(name: string, size: number) {
    this.#name = name;
    this.#size = size;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    const share = this.#size === 0 ? 1 : this.#bytes / this.#size;
    const steps = process.stdout.isTTY ? 200 : 4;
    const step = Math.floor(share * steps);
    if (step === this.#shown) return;
    this.#shown = step;
    const cells = Math.round(share * BAR_CELLS);
    const bar = "#".repeat(cells) + "-".repeat(BAR_CELLS - cells);
    const perSecond = this.#bytes / MEBIBYTE / ((performance.now() - this.#begun) / 1000);
    const percent = Math.floor(100 * share).toString().padStart(3);
    const line = `${this.#name} [${bar}] ${percent}% ${perSecond.toFixed(0)} MiB/s`;
    process.stdout.write(process.stdout.isTTY ? `\r${line}` : `${line}\n`);
  }

  end(): void {
    if (process.stdout.isTTY) process.stdout.write("\n");
  }
}

async function receive(folder: string, listen: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const endpoint = new Endpoint({ nodeId: RECEIVER, listen, security });
  receiveFiles(endpoint, folder);
  await endpoint.start();
  console.log(`waiting for files at ${endpoint.addresses.join(", ")}, end with Ctrl-C`);
  process.once("SIGINT", () => void endpoint.close().then(() => process.exit(0)));
}

async function send(path: string, address: string): Promise<void> {
  const nodeId = `sender-${randomBytes(4).toString("hex")}`;
  await using endpoint = new Endpoint({ nodeId, security });
  await endpoint.start();
  await endpoint.connect({ nodeId: RECEIVER, address });
  console.log(`SHA-256 ${await sendFile(endpoint, path, basename(path))}, verified`);
}

async function demo(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "hawser-example-"));
  const source = join(folder, "source.bin");
  const inbox = join(folder, "inbox");
  await using receiver = new Endpoint({ nodeId: RECEIVER, listen: "127.0.0.1:0", security });
  await using sender = new Endpoint({ nodeId: "sender", security });
  try {
    await mkdir(inbox);
    await generate(source);
    receiveFiles(receiver, inbox);
    await receiver.start();
    await sender.start();
    await sender.connect({ nodeId: RECEIVER, address: receiver.addresses[0]! });
    console.log(`the receiver's answer: ${await sendFile(sender, source, "copy.bin")}`);
    const same = await digestOf(source) === await digestOf(join(inbox, "copy.bin"));
    console.log(same ? "both files have the same SHA-256" : "the files differ");
    if (!same) process.exitCode = 1;
    await sendFile(sender, source, "../copy.bin").catch(printRefusal);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function generate(path: string): Promise<void> {
  const file = await open(path, "w");
  for (let i = 0; i < DEMO_BLOCKS; i++) await file.writeFile(randomBytes(BLOCK_BYTES));
  await file.close();
}

async function digestOf(path: string): Promise<string> {
  return createHash("sha256").update(await readFile(path)).digest("hex");
}

function printRefusal(error: unknown): void {
  if (!(error instanceof RemoteError)) throw error;
  console.log(`refused by the receiver: ${error.remoteCode}: ${error.remoteMessage}`);
}

const [command, path, address] = process.argv.slice(2);
if (command === undefined) await demo();
else if (command === "receive" && path !== undefined) await receive(path, address ?? "127.0.0.1:0");
else if (command === "send" && path !== undefined && address !== undefined) {
  await send(path, address);
} else {
  console.error("usage: file_copy [receive FOLDER [ADDRESS] | send FILE ADDRESS]");
  process.exitCode = 2;
}
