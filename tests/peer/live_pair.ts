/** Two nodes whose sessions carry what there is by themselves, at the end of a turn or at once. */

import { FakeSession, Node, type NodeConfig, settle } from "../protocol/v3_pair.ts";
import type { OutMessage } from "../../src/protocol/v3/out_message.ts";

class LiveSession extends FakeSession {
  onBusy: () => void = () => {};

  override enqueue(message: OutMessage): void {
    super.enqueue(message);
    this.onBusy();
  }

  override wake(): void {
    super.wake();
    this.onBusy();
  }
}

/** The two nodes. */
export class LivePair {
  readonly a: Node;
  readonly b: Node;
  /** Nothing is carried while this is set. */
  stopped = false;
  readonly #atOnce: boolean;
  #queued = false;
  #carrying = false;

  constructor(config: NodeConfig = {}, atOnce: boolean = false) {
    this.#atOnce = atOnce;
    const node = (peer: string) => {
      const session = new LiveSession();
      session.onBusy = () => this.#atOnce ? this.#carry() : this.carrySoon();
      return new Node(peer, { ...config, session });
    };
    this.a = node("b");
    this.b = node("a");
  }

  /** Carries at the end of this turn. */
  carrySoon(): void {
    if (this.#queued) return;
    this.#queued = true;
    queueMicrotask(() => {
      this.#queued = false;
      if (!this.stopped) this.#carry();
    });
  }

  #carry(): void {
    if (this.#carrying) return;
    this.#carrying = true;
    settle(this.a, this.b);
    this.#carrying = false;
  }
}

/** Lets everything happen that is under way: only promises are, so no time needs to pass. */
export async function turns(count: number = 100): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}
