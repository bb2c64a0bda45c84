/** An attacker of version 3 that numbers its frames, and answers as much as it likes. */

import type { Scene } from "./harness.ts";
import type { RawPeer, RawTarget } from "./raw_peer.ts";
import { join } from "./wire.ts";
import {
  ackEntry,
  type FrameV3,
  frameV3,
  helloFieldsV3,
  KINDS,
  readV3,
  textOf,
  topicOf,
} from "./wire_v3.ts";

/** What a talker does by itself. */
export interface Manners {
  /** Fields of its hello, added or replaced. */
  hello?: Record<string, unknown>;
  /** Where it connects from. */
  target?: Partial<RawTarget>;
  /** Acknowledges what it receives. */
  acks?: boolean;
  /** Answers pings. */
  pongs?: boolean;
  /** Reads at all. */
  reads?: boolean;
}

/** Frames that one write carries. */
const BATCH = 1_000;

/** An attacker that has been let in. */
export class Talker {
  readonly peer: RawPeer;
  /** How many frames of each kind came. */
  readonly heard: Record<string, number> = {};
  /** How often each code came, in errors and in resets of streams. */
  readonly codes: Record<string, number> = {};
  readonly #manners: Manners;
  readonly #watchers = new Set<() => void>();
  #next = 1;

  private constructor(peer: RawPeer, manners: Manners) {
    this.peer = peer;
    this.#manners = manners;
  }

  /** Says hello, is let in, and listens. */
  static async join(scene: Scene, manners: Manners = {}): Promise<Talker> {
    const peer = await scene.insider(helloFieldsV3(manners.hello), manners.target);
    const talker = new Talker(peer, manners);
    if (manners.reads === false) peer.stopReading();
    else talker.#listen();
    return talker;
  }

  /** The number of the frame that `frame` made last. */
  get last(): number {
    return this.#next - 1;
  }

  /** A frame of the normal lane with the next number. */
  frame(parts: Omit<FrameV3, "id" | "lane" | "topic"> & { topic?: string } = {}): Uint8Array {
    const { topic, payload = "", ...rest } = parts;
    const content = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
    const whole = topic === undefined ? content : join(topicOf(topic), Uint8Array.from(content));
    return frameV3({ ...rest, topic: topic !== undefined, id: this.#next++, payload: whole });
  }

  /** Writes frames; resolves when they have left. */
  say(...frames: readonly Uint8Array[]): Promise<void> {
    return this.peer.write(...frames);
  }

  /**
   * Writes what `make` gives for 0, 1, 2 and so on. One that acknowledges waits after each batch
   * until it was read, or its acknowledgements would be late. False: the connection ended.
   */
  async storm(times: number, make: (i: number) => Uint8Array, batch = BATCH): Promise<boolean> {
    for (let i = 0; i < times; i += batch) {
      const length = Math.min(batch, times - i);
      await this.say(...Array.from({ length }, (_, j) => make(i + j)));
      if (this.#manners.acks && !await this.settled()) return false;
    }
    return true;
  }

  /** Resolves once everything written so far has been read; false where the connection ended. */
  async settled(): Promise<boolean> {
    const pongs = this.heard.pong ?? 0;
    await this.say(frameV3({ kind: "ping", id: 7 }));
    return await this.until(() => (this.heard.pong ?? 0) > pongs);
  }

  /** Resolves when the condition holds; looks at every frame. False: the connection ended. */
  until(condition: () => boolean): Promise<boolean> {
    return new Promise((resolve) => {
      const check = () => {
        if (!condition()) return;
        this.#watchers.delete(check);
        resolve(true);
      };
      this.#watchers.add(check);
      this.peer.gone.then(() => resolve(condition()));
      check();
    });
  }

  async #listen(): Promise<void> {
    const { acks = false, pongs = true } = this.#manners;
    for (;;) {
      const body = await this.peer.nextFrame();
      if (body === undefined) return;
      const { kind, lane, id, payload } = readV3(body);
      const name = Object.entries(KINDS).find(([, number]) => number === kind)![0];
      this.heard[name] = (this.heard[name] ?? 0) + 1;
      if (name === "ping" && pongs) this.say(frameV3({ kind: "pong", id }));
      if (name === "error" || name === "reset") {
        const { code } = JSON.parse(textOf(payload.subarray(8)));
        this.codes[code] = (this.codes[code] ?? 0) + 1;
      }
      const sequenced = kind < KINDS.ping;
      if (sequenced && acks) this.say(frameV3({ kind: "ack", payload: ackEntry(lane, id) }));
      for (const check of [...this.#watchers]) check();
    }
  }
}
