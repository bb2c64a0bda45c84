/** Messages as programs log and pass them on: JSON whose keys come again and whose values differ. */

/** Different documents, so that what was sent just now is no dictionary for what comes next. */
const DOCUMENTS = 64;
/** One message of so many is compared byte by byte; of the others the length and the number. */
const MESSAGES_PER_COMPARISON = 16;
const HEAD = '{"number":"';
const DIGITS = 10;

/** Documents of one length, equal in every process. */
export class JsonMessages {
  readonly #documents: readonly Uint8Array[];

  /** `bytes`: the length of each message. */
  constructor(bytes: number) {
    const random = randomOf(7);
    this.#documents = Array.from({ length: DOCUMENTS }, () => documentOf(bytes, random));
  }

  /** The message of this number; its array is that of another one, too. */
  make(number: number): Uint8Array {
    const message = this.#documents[number % DOCUMENTS]!;
    for (let at = HEAD.length + DIGITS - 1, rest = number; at >= HEAD.length; at--) {
      message[at] = 48 + rest % 10;
      rest = Math.floor(rest / 10);
    }
    return message;
  }

  /** Throws where the message is not that of this number. */
  check(payload: Uint8Array, number: number): void {
    const expected = this.make(number);
    const least = HEAD.length + DIGITS;
    const compared = number % MESSAGES_PER_COMPARISON === 0 ? expected.length : least;
    if (payload.length !== expected.length) {
      throw new Error(`message ${number} has ${payload.length} bytes`);
    }
    for (let at = 0; at < compared; at++) {
      if (payload[at] !== expected[at]) throw new Error(`message ${number} differs at byte ${at}`);
    }
  }
}

/** A list of records, and blanks up to the length. */
function documentOf(bytes: number, random: () => number): Uint8Array {
  const records: string[] = [];
  const text = () => `${HEAD}${"0".repeat(DIGITS)}","records":[${records.join(",")}]}`;
  while (text().length < bytes) records.push(recordOf(random));
  records.pop();
  return new TextEncoder().encode(text().padEnd(bytes));
}

function recordOf(random: () => number): string {
  const one = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
  const below = (bound: number) => Math.floor(random() * bound);
  const hex = (digits: number) => {
    return Array.from({ length: digits }, () => below(16).toString(16)).join("");
  };
  return JSON.stringify({
    id: `${hex(8)}-${hex(4)}-4${hex(3)}-a${hex(3)}-${hex(12)}`,
    time: new Date(1_763_000_000_000 + below(86_400_000)).toISOString(),
    level: one(["debug", "info", "info", "info", "warn"]),
    service: one(["orders", "payments", "catalogue", "shipping"]),
    host: `node-${below(40)}.eu-west.example`,
    request: {
      method: one(["GET", "GET", "POST", "PUT"]),
      path: `/v1/${one(["customers", "orders", "items"])}/${below(100_000)}`,
      status: one([200, 200, 200, 201, 404, 500]),
      durationMs: below(5_000) / 10,
    },
    customer: { id: below(1_000_000), country: one(["DE", "FR", "IN", "US"]), premium: false },
    tags: [one(["web", "mobile"]), one(["canary", "stable"])],
  });
}

/** Numbers from 0 to 1 that are the same for the same seed: xorshift of 32 bits. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
