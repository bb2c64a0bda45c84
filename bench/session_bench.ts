/**
 * What a session adds to the frames of its messages: numbers, windows, acknowledgements, and what is
 * kept until those have come. Two sessions in one process, joined in memory, against the codec alone.
 * Each iteration sends and delivers 1000 messages, so time per message is time per iteration by 1000.
 */

import { FrameDecoder } from "../src/protocol/frame.ts";
import { Outbox } from "../src/protocol/outbox.ts";
import { Backlog } from "../src/protocol/v3/backlog.ts";
import { Channel, type ChannelLink } from "../src/protocol/v3/channel.ts";
import { FrameCodec } from "../src/protocol/v3/frame_codec.ts";
import { Session } from "../src/protocol/v3/session.ts";
import { KIND, type Lane, NORMAL } from "../src/protocol/v3/types.ts";
import { crc32 } from "../src/runtime/crc32.ts";

const MESSAGES = 1000;
const BATCH_BYTES = 131_072;
const MAX_MESSAGE_SIZE = 16 * 1024 * 1024;
const RECEIVE_WINDOW = 16 * 1024 * 1024;
const SIZES: readonly (readonly [name: string, bytes: number])[] = [
  ["64 B", 64],
  ["1 KiB", 1024],
  ["16 KiB", 16 * 1024],
];

function newCodec(): FrameCodec {
  return new FrameCodec({
    checksum: true,
    crc32,
    lz4: undefined,
    zstd: undefined,
    method: undefined,
    compressMinSize: 256,
    maxMessageSize: MAX_MESSAGE_SIZE,
  });
}

/** One end: a session with a single connection, which gives its batches to the other end. */
class End implements ChannelLink {
  readonly outbox = new Outbox();
  readonly writable = true;
  readonly session: Session;
  readonly channel: Channel;
  received = 0;
  other: End | undefined;
  readonly #decoder = new FrameDecoder({ maxFrameBytes: MAX_MESSAGE_SIZE + 512 });

  constructor() {
    this.session = new Session(
      {
        seal: undefined,
        resume: true,
        maxMessageSize: MAX_MESSAGE_SIZE,
        peerWindow: RECEIVE_WINDOW,
        receiveWindow: RECEIVE_WINDOW,
        strategy: "first-available",
        backlog: new Backlog(),
      },
      {
        wantsMessage: () => true,
        onMessage: () => this.received++,
        onOther() {},
        checkLoad() {},
        onRoom() {},
        onSent() {},
        onBusy() {},
        onPayloadFree() {},
        onTimer() {},
      },
      0,
    );
    const config = {
      codec: newCodec(),
      resume: true,
      keepaliveMs: undefined,
      healthCheckMs: undefined,
    };
    const sink = { onSuspect() {}, onGoaway() {}, onDrained() {} };
    this.channel = new Channel(config, this, sink, 0);
  }

  flush(): void {
    const chunk = this.outbox.take();
    if (chunk === undefined) return;
    this.channel.seal(chunk);
    this.other!.take(chunk);
  }

  flushSoon(): void {}

  recycle(chunk: Uint8Array): void {
    this.outbox.recycle(chunk);
  }

  take(chunk: Uint8Array): void {
    this.#decoder.push(chunk);
    while (this.#decoder.advance()) {
      const { bytes, start, end } = this.#decoder;
      this.#decoder.release(this.channel.handleBody(bytes, start, end, 0));
    }
    this.channel.release();
  }
}

/** Everything is acknowledged when this returns. */
function throughSessions(lane: Lane, payload: Uint8Array): () => void {
  const [from, to] = [new End(), new End()];
  [from.other, to.other] = [to, from];
  from.session.attach(from.channel, [0, 0, 0], 0);
  to.session.attach(to.channel, [0, 0, 0], 0);
  return () => {
    const before = to.received;
    for (let i = 0; i < MESSAGES; i++) {
      if (!from.session.sendData(lane, undefined, payload, false, undefined, 0)) {
        from.flush();
        to.session.ackNow(to.channel);
        to.flush();
        i--;
      }
    }
    from.flush();
    to.session.ackNow(to.channel);
    to.flush();
    if (to.received - before !== MESSAGES || !from.session.idle) {
      throw new Error(`${to.received - before} of ${MESSAGES} messages arrived`);
    }
  };
}

/** The frames alone: encoded, cut apart and decoded. */
function throughCodec(payload: Uint8Array): () => void {
  const codec = newCodec();
  const outbox = new Outbox();
  const decoder = new FrameDecoder({ maxFrameBytes: MAX_MESSAGE_SIZE + 512 });
  let received = 0;
  const flush = (): void => {
    const chunk = outbox.take();
    if (chunk === undefined) return;
    decoder.push(chunk);
    while (decoder.advance()) {
      const frame = codec.decodeAt(decoder.bytes, decoder.start, decoder.end);
      if (frame.kind === KIND.data && frame.payload.length === payload.length) received++;
      decoder.release(false);
    }
    outbox.recycle(chunk);
  };
  return () => {
    const before = received;
    for (let id = 1; id <= MESSAGES; id++) {
      codec.encodePlain(outbox, NORMAL, id, payload);
      if (outbox.bytes >= BATCH_BYTES) flush();
    }
    flush();
    if (received - before !== MESSAGES) throw new Error("frames are missing");
  };
}

for (const [name, bytes] of SIZES) {
  const payload = Uint8Array.from({ length: bytes }, (_, i) => i * 31);
  const group = `${name}, ${MESSAGES} messages`;
  Deno.bench({ name: `codec, ${name}`, group, baseline: true, fn: throughCodec(payload) });
  Deno.bench({ name: `session, ${name}`, group, fn: throughSessions(NORMAL, payload) });
  const control = throughSessions(0, payload);
  Deno.bench({ name: `session, lane control, ${name}`, group, fn: control });
}
