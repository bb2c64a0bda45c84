/**
 * A victim, a canary that is connected to it all the time, and attackers on raw sockets.
 *
 * The canary sends numbered messages before, during and after every attack; each must arrive, in
 * order and soon. What an attack may do to the victim is what {@linkcode Scene.refuses} says: one
 * typed error, one counter up by one, one connection closed, all else as before.
 */

import assert from "node:assert/strict";
import process from "node:process";
import {
  Endpoint,
  type EndpointConfig,
  type ErrorCode,
  type Message,
  type RefusedStats,
  type StateChangeDetail,
  type TransportError,
} from "../../mod.ts";
import { type Credentials, TestCa } from "../support/certs.ts";
import { RawPeer, type RawTarget } from "./raw_peer.ts";
import { hello } from "./wire.ts";

/** How long the end of an attacker's connection may take. */
export const CLOSED_WITHIN_MS = 1_000;
/** The canary's pace, and the longest one of its messages may take. */
const BEAT_MS = 5;
const BEAT_WITHIN_MS = 3_000;

/** How a scene is set. */
export interface SceneOptions {
  /** Options of the victim beside its node id, address and security. */
  victim?: Partial<EndpointConfig>;
  /** Options of all endpoints, the canary too. */
  everybody?: Partial<EndpointConfig>;
  /** Mutual TLS in strict mode; otherwise plain text in development mode. */
  strict?: boolean | "CommonName" | "SubjectAltName";
  /** What the victim's application does with messages that are not the canary's. */
  onMessage?: (message: Message) => void | Promise<void>;
}

/** What an attack must lead to. */
export interface Refusal {
  /** The code of the one error, and of the counter that goes up by one. */
  code?: ErrorCode;
  /** Instead of an error: the counter of connections turned away. */
  refused?: keyof RefusedStats;
  /** Milliseconds from the end of the attack to the end of its connection. */
  withinMs?: number;
}

/** A message of the victim's application that was not the canary's. */
export interface Delivered {
  from: string;
  text: string;
}

/** Sets the scene, runs the test and checks that everybody but the attackers is well. */
export function inScene(
  options: SceneOptions,
  test: (scene: Scene) => Promise<void>,
): () => Promise<void> {
  return async () => {
    const scene = new Scene(options);
    const unhandled: unknown[] = [];
    const onUnhandled = (reason: unknown) => unhandled.push(reason);
    const { warn } = console;
    process.on("unhandledRejection", onUnhandled);
    console.warn = (line: unknown) => scene.checkText(String(line));
    try {
      await scene.start();
      await test(scene);
      await scene.checkCanary();
    } finally {
      await scene.close();
      process.off("unhandledRejection", onUnhandled);
      console.warn = warn;
    }
    assert.deepEqual(unhandled, [], "unhandled rejections");
    assert.deepEqual(scene.improperText, [], "text of a peer that was not escaped or not cut");
  };
}

/** A victim under attack. */
export class Scene {
  readonly delivered: Delivered[] = [];
  /** Typed errors the victim reported, by event or by a rejected `connect`, each once. */
  readonly reported: TransportError[] = [];
  /** Log lines, messages of events and of errors with control characters, or endless ones. */
  readonly improperText: string[] = [];
  victim!: Endpoint;
  canary!: Endpoint;
  ca!: TestCa;
  readonly #options: SceneOptions;
  readonly #raw: RawPeer[] = [];
  readonly #watchers = new Set<() => void>();
  readonly #open = new Set<number>();
  #sent = 0;
  #arrived = 0;
  #sentAt: number[] = [];
  #canaryTrouble: string[] = [];
  #beat: ReturnType<typeof setInterval> | undefined;

  constructor(options: SceneOptions) {
    this.#options = options;
  }

  /** The victim's port. */
  get port(): number {
    return Number(this.victim.addresses[0]!.split(":").at(-1));
  }

  /** Accepted connections of the victim that have not ended. */
  get openConnections(): number {
    return this.#open.size;
  }

  async start(): Promise<void> {
    if (this.#options.strict) this.ca = await TestCa.create();
    this.victim = new Endpoint({
      nodeId: "victim",
      listen: "tcp://127.0.0.1:0",
      ...await this.#security("victim"),
      ...this.#options.victim,
    });
    this.#listen();
    await this.victim.start();
    this.canary = await this.join("canary");
    this.#beat = setInterval(() => this.#send(), BEAT_MS);
    await this.beats();
  }

  /** A further well-behaved endpoint, connected to the victim. The caller closes it. */
  async join(nodeId: string, options: Partial<EndpointConfig> = {}): Promise<Endpoint> {
    const endpoint = new Endpoint({
      nodeId,
      poolSize: 1,
      ...await this.#security(nodeId),
      ...options,
    });
    await endpoint.start();
    await endpoint.connect({ nodeId: "victim", address: this.victim.addresses[0]! });
    return endpoint;
  }

  /** A raw connection to the victim. */
  async attacker(target: Partial<RawTarget> = {}): Promise<RawPeer> {
    const peer = await RawPeer.connect({ port: this.port, ...target });
    this.#raw.push(peer);
    return peer;
  }

  /** A raw connection that has said hello and was let in. */
  async insider(
    fields: Record<string, unknown> = {},
    target: Partial<RawTarget> = {},
  ): Promise<RawPeer> {
    const peer = await this.attacker(target);
    await peer.write(hello(fields));
    const answer = await peer.answer();
    assert.equal(answer.type, "welcome", JSON.stringify(answer));
    return peer;
  }

  /** Certificate and key of a raw peer, from an authority of its own choice. */
  credentials(
    nodeId: string,
    options: Parameters<TestCa["issue"]>[1] = {},
  ): Promise<Credentials> {
    return this.ca.issue(nodeId, options);
  }

  /** Runs an attack and holds what the victim does against what it must do. Returns the error. */
  async refuses(
    expected: Refusal,
    attack: () => Promise<RawPeer>,
  ): Promise<TransportError | undefined> {
    const { code, refused, withinMs = CLOSED_WITHIN_MS } = expected;
    const before = this.#snapshot();
    const peer = await attack();
    await within(withinMs, peer.gone, "the attacker's connection is not closed");
    await this.when(
      () => this.#open.size === before.open && this.#grown(before).length > 0,
      CLOSED_WITHIN_MS,
      () => `${this.#open.size} connections instead of ${before.open}, ${this.#grown(before)}`,
    );
    await this.beats();
    assert.deepEqual(this.#grown(before), [code ?? refused], "counters that went up by one");
    const errors = this.reported.slice(before.reported);
    assert.deepEqual(errors.map((error) => error.code), code === undefined ? [] : [code]);
    assert.equal(this.#open.size, before.open, "connections");
    return errors[0];
  }

  /** Dials somebody and gives the error that `connect` rejects with. */
  async dialFails(nodeId: string, address: string, code: ErrorCode): Promise<TransportError> {
    const before = this.#snapshot();
    const error = await this.victim.connect({ nodeId, address }).then(
      () => assert.fail(`${nodeId} was taken in`),
      (reason: TransportError) => reason,
    );
    this.#report(error);
    await this.beats();
    assert.equal(error.code, code, error.message);
    assert.deepEqual(this.#grown(before), [code], "counters that went up by one");
    assert.deepEqual(this.reported.slice(before.reported).map((each) => each.code), [code]);
    assert.equal(this.victim.peer(nodeId), undefined, "the peer is forgotten");
    return error;
  }

  /** Resolves when the condition holds; looks at every event and every message. */
  when(condition: () => boolean, ms: number, state: () => string): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (settle: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(check);
        settle();
      };
      const check = () => {
        if (condition()) done(resolve);
      };
      const timer = setTimeout(() => {
        done(() => reject(new Error(`not within ${ms} ms: ${state()}`)));
      }, ms);
      this.#watchers.add(check);
    });
  }

  /** Resolves when a message that the canary sends from now on has arrived. */
  async beats(): Promise<void> {
    const next = this.#sent + 1;
    await this.when(() => this.#arrived >= next, BEAT_WITHIN_MS, () => "the canary is not heard");
  }

  /** All that the canary sent has arrived, in order and in time, over the one connection. */
  async checkCanary(): Promise<void> {
    await this.beats();
    clearInterval(this.#beat);
    const all = this.#sent;
    await this.when(() => this.#arrived >= all, BEAT_WITHIN_MS, () => "the canary's last messages");
    assert.equal(this.#arrived, all, "messages of the canary");
    assert.deepEqual(this.#canaryTrouble, []);
    assert.equal(this.canary.stats().reconnections, 0, "the canary was cut off");
  }

  async close(): Promise<void> {
    clearInterval(this.#beat);
    for (const peer of this.#raw) peer.close();
    await Promise.all([this.canary?.close({ drainMs: 0 }), this.victim?.close({ drainMs: 0 })]);
  }

  async #security(nodeId: string): Promise<Partial<EndpointConfig>> {
    const { strict, everybody } = this.#options;
    if (!strict) return { security: "development", ...everybody };
    const nodeIdVerification = strict === true ? "CommonName" : strict;
    const { cert, key } = await this.ca.issue(nodeId);
    const tls = { cert, key, ca: this.ca.ca, requireClientAuth: true, nodeIdVerification };
    return { tls, ...everybody };
  }

  #listen(): void {
    const { victim } = this;
    victim.addEventListener("statechange", ({ detail }) => this.#stateChanged(detail));
    victim.addEventListener("warning", ({ detail }) => {
      this.checkText(detail.message);
      if (detail.error !== undefined) this.#report(detail.error);
    });
    victim.addEventListener("peerdown", ({ detail }) => {
      if (detail.error !== undefined) this.#report(detail.error);
    });
    victim.onMessage((message) => {
      if (message.from === "canary") return this.#hear(message.payload);
      this.delivered.push({ from: message.from, text: new TextDecoder().decode(message.payload) });
      this.#changed();
      return this.#options.onMessage?.(message);
    });
  }

  #send(): void {
    const number = new Uint8Array(4);
    new DataView(number.buffer).setUint32(0, this.#sent);
    this.#sentAt[this.#sent++] = performance.now();
    this.canary.send("victim", number).catch((error) => this.#canaryTrouble.push(String(error)));
  }

  #hear(payload: Uint8Array): void {
    const number = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    if (number !== this.#arrived) this.#canaryTrouble.push(`${number} instead of ${this.#arrived}`);
    const took = performance.now() - this.#sentAt[number]!;
    if (took > BEAT_WITHIN_MS) this.#canaryTrouble.push(`${number} took ${took} ms`);
    this.#arrived++;
    this.#changed();
  }

  #stateChanged({ connection, to, reason }: StateChangeDetail): void {
    this.checkText(reason);
    if (to === "failed" || to === "closed") this.#open.delete(connection);
    else this.#open.add(connection);
    this.#changed();
  }

  #report(error: TransportError): void {
    if (!this.reported.includes(error)) this.reported.push(error);
    this.checkText(error.message);
    this.#changed();
  }

  /** Notes text that no log line or message should have. */
  checkText(text: string): void {
    if (text.length > 600 || /[^ -~…]/.test(text)) this.improperText.push(text.slice(0, 700));
  }

  #changed(): void {
    for (const check of [...this.#watchers]) check();
  }

  #snapshot(): { open: number; reported: number; counters: Record<string, number> } {
    return { open: this.#open.size, reported: this.reported.length, counters: this.#counters() };
  }

  #counters(): Record<string, number> {
    const { errors, refused, handlerErrors } = this.victim.stats();
    return { ...errors, ...refused, handlerErrors };
  }

  /** Names of counters that went up, each as often as it went up. */
  #grown(before: { counters: Record<string, number> }): string[] {
    return Object.entries(this.#counters()).flatMap(([name, count]) =>
      Array<string>(count - (before.counters[name] ?? 0)).fill(name)
    );
  }
}

/** The promise's value, or an error when it takes too long. */
export async function within<T>(ms: number, promise: Promise<T>, complaint: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${complaint} after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resident memory of this process in MiB. */
export function residentMiB(): number {
  // Bun runs all files in one process, and leaves the garbage of one to the next.
  (globalThis as { Bun?: { gc(now: boolean): void } }).Bun?.gc(true);
  return process.memoryUsage().rss / 2 ** 20;
}
