import { TransportError } from "../errors.ts";
import type { Transport } from "./transport.ts";
export class TransportRegistry {
  #m = new Map<string, Transport>();
  register(t: Transport): void {
    this.#m.set(t.scheme, t);
  }
  get(s: string): Transport {
    const t = this.#m.get(s);
    if (!t) {
      throw new TransportError(
        "UnsupportedProtocol",
        `Cannot use ${s}: there is ${this.schemes().join(", ")}`,
      );
    }
    return t;
  }
  schemes(): string[] {
    return [...this.#m.keys()];
  }
}
