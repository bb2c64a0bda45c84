/**
 * One connection of the protocol in any version, without sockets, timers or clocks: bytes and the time go in by
 * method, frames and messages come out through the outbox and the sink.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import { FrameDecoder } from "./frame.ts";
import type { Negotiated } from "./handshake.ts";
import { lateRejection } from "./reject.ts";
import { type HandshakeConfig, Handshaker, type HandshakeSink } from "./handshaker.ts";
export type { Rejection } from "./handshaker.ts";
import { compressMessage, decodeBodyV2, type Lz4 } from "./message.ts";
import { Outbox } from "./outbox.ts";
import { Channel, type ChannelLink } from "./v3/channel.ts";
import { FrameCodec, type FrameCodecConfig } from "./v3/frame_codec.ts";
import type { Substream } from "./v3/substream.ts";

/** Limit of a frame's body before the handshake is complete (docs/protocol.md, section 1). */
const HANDSHAKE_FRAME_BYTES = 4096;
/** What the frame of each version may have beyond the largest message: flags; header, prefix, topic. */
const FRAME_OVERHEAD = { 1: 0, 2: 1, 3: 512 } as const;
/** "{": no frame of version 3 begins with it. */
const REJECT_BYTE = 0x7b;
/** A frame that has begun must be whole within this many times the io timeout. */
const WHOLE_FRAME_FACTOR = 10;
/**
 * A peer that renews silent connections has gone when it was silent for this many of its intervals:
 * twice the interval is promised, and a timer may be late.
 */
export const MISSED_INTERVALS = 1.9;

/** What a connection tells its owner. */
export interface ConnectionSink extends HandshakeSink {
  /** The handshake is complete. */
  onEstablished(negotiated: Negotiated): void;
  /** Whether a further message can be taken now. False holds the rest until `resume`. */
  wantsMessage(): boolean;
  /** One message of the peer; the payload is a view that this side never writes to. */
  onMessage(payload: Uint8Array): void;
  /** Dialer only: nothing went one of the two ways for a keepalive interval. */
  onSilent(): void;
  /** Version 3: the peer does not answer, or it does again. */
  onSuspect(suspect: boolean): void;
  /** Version 3: the peer starts nothing new here. */
  onGoaway(code: number): void;
  /** Version 3: nothing new is begun here, and nothing is under way. */
  onDrained(): void;
  /** Version 3: whether the link takes more now. */
  readonly writable: boolean;
  /** Version 3: write what is in the outbox. */
  flush(): void;
  /** Version 3: write it at the end of this turn. */
  flushSoon(): void;
  /** Version 3: a chunk that was kept when it was written is needed no more. */
  recycle?(chunk: Uint8Array): void;
  /** Version 3: whether sub-streams that are writable may be written to. */
  readonly mayWrite?: boolean;
  /** Version 3: open a sub-stream; false: there is none to be had. */
  openSubstream?(sub: Substream): boolean;
  /** Version 3: write what is in the outbox of a sub-stream, and its end where it is finishing. */
  flushSubstream?(sub: Substream): void;
  /** Version 3: do so at the end of this turn. */
  flushSubstreamSoon?(sub: Substream): void;
  /** The connection can't go on. Said once; what is in the outbox (a reject) may still be sent. */
  onError(error: TransportError): void;
}

/** What a connection needs to know. Times are milliseconds. */
export interface ConnectionConfig extends HandshakeConfig {
  /** When the handshake must be complete, on the monotonic clock. */
  readonly handshakeDeadline: number;
  readonly ioTimeoutMs: number;
  /** The interval of silence that calls `onSilent`; undefined: never. */
  readonly keepaliveMs: number | undefined;
  readonly lz4: Lz4 | undefined;
  /** Version 3: the other compression. */
  readonly zstd: Lz4 | undefined;
  /** Version 3: which of them to use, where both sides have it. */
  readonly compressMethod: "lz4" | "zstd";
  /** Messages of at least this many bytes are compressed, where that was negotiated. */
  readonly compressMinSize: number;
  /** Version 3: the checksum of frames, where it was negotiated. */
  readonly crc32: (bytes: Uint8Array, seed?: number) => number;
  /** Version 3: the interval of pings; undefined: only after silence. */
  readonly healthCheckMs: number | undefined;
}

type Phase = "handshake" | "open" | "failed";

/** Most connections never have any. */
const NONE_OWING = new Set<Substream>();

/** What carries the frames of a channel. */
class SinkLink implements ChannelLink {
  readonly outbox: Outbox;
  readonly #sink: ConnectionSink;

  constructor(outbox: Outbox, sink: ConnectionSink) {
    this.outbox = outbox;
    this.#sink = sink;
  }

  get writable(): boolean {
    return this.#sink.writable;
  }

  flush(): void {
    this.#sink.flush();
  }

  flushSoon(): void {
    this.#sink.flushSoon();
  }

  recycle(chunk: Uint8Array): void {
    this.#sink.recycle?.(chunk);
  }

  get mayWrite(): boolean {
    return this.#sink.mayWrite === true;
  }

  openSubstream(sub: Substream): boolean {
    return this.#sink.openSubstream?.(sub) === true;
  }

  flushSubstream(sub: Substream): void {
    this.#sink.flushSubstream?.(sub);
  }

  flushSubstreamSoon(sub: Substream): void {
    this.#sink.flushSubstreamSoon?.(sub);
  }
}

/** The protocol of one connection. */
export class Connection {
  /** Frames to be written; the owner takes them. */
  readonly outbox: Outbox = new Outbox();
  /** In version 3, until the handshake is complete. */
  #config: ConnectionConfig | undefined;
  readonly #dialed: boolean;
  readonly #ioTimeoutMs: number;
  readonly #sink: ConnectionSink;
  readonly #decoder = new FrameDecoder({ maxFrameBytes: HANDSHAKE_FRAME_BYTES });
  /** Until the handshake is complete. */
  #handshaker: Handshaker | undefined;
  #phase: Phase = "handshake";
  #negotiated: Negotiated | undefined;
  #lz4: Lz4 | undefined;
  #channel: Channel | undefined;
  #delivering = false;
  #held = false;
  #ended = false;
  #receivedAt: number;
  #sentAt: number;
  #frameStartedAt: number | undefined;
  #silenceTold = false;
  /** Sub-streams on which the peer owes the rest of a frame. */
  #owing = NONE_OWING;

  /** `now` is the monotonic clock, as in every method. A dialer's hello is in the outbox at once. */
  constructor(config: ConnectionConfig, sink: ConnectionSink, now: number) {
    this.#config = config;
    this.#dialed = config.role === "dialer";
    this.#ioTimeoutMs = config.ioTimeoutMs;
    this.#sink = sink;
    this.#receivedAt = now;
    this.#sentAt = now;
    this.#handshaker = new Handshaker(config, sink, (frame) => this.outbox.addFrame(frame));
    this.#handshaker.start(now);
  }

  /** What both sides agreed on; undefined until the handshake is complete. */
  get negotiated(): Negotiated | undefined {
    return this.#negotiated;
  }

  /** What there is in version 3: sending is up to its session. */
  get channel(): Channel | undefined {
    return this.#channel;
  }

  /** Whether `send` may be called, in versions 1 and 2. */
  get open(): boolean {
    return this.#phase === "open";
  }

  /** Whether undelivered bytes wait for `resume`. */
  get held(): boolean {
    return this.#held;
  }

  /** Bytes received and not yet delivered. */
  get undeliveredBytes(): number {
    return this.#decoder.bufferedBytes;
  }

  /** Whether bytes were received that may still become messages. */
  get hasRemains(): boolean {
    return (this.#held || this.#delivering) && this.#decoder.bufferedBytes > 0;
  }

  /** Puts one message into the outbox. The payload is copied. Returns its bytes on the wire. */
  send(payload: Uint8Array): number {
    const before = this.outbox.bytes;
    if (this.#negotiated?.version === 1) {
      this.outbox.addV1(payload);
    } else {
      const packed = this.#lz4 !== undefined && payload.length >= this.#config!.compressMinSize
        ? compressMessage(payload, this.#lz4)
        : undefined;
      if (packed === undefined) this.outbox.addV2(0, payload);
      else this.outbox.addV2(1, packed);
    }
    return this.outbox.bytes - before;
  }

  /** The peer has shown in another way that it lives. */
  noteLife(now: number): void {
    this.#receivedAt = now;
    this.#sentAt = now;
    this.#silenceTold = false;
  }

  /** Bytes were given to the link; liveness counts them. */
  handleWritten(now: number): void {
    this.#sentAt = now;
  }

  /** Bytes arrived. True: nobody looks at the chunk any more, nor at those before it. */
  handleBytes(chunk: Uint8Array, now: number): boolean {
    if (this.#phase === "failed") return false;
    this.#receivedAt = now;
    this.#silenceTold = false;
    this.#channel?.noteReceived(now);
    this.#decoder.push(chunk);
    this.#advance(now);
    return this.#decoder.chunksFree;
  }

  /**
   * The peer has opened a sub-stream; undefined: it must not, and the connection has failed. Not
   * before the handshake is complete.
   */
  acceptSubstream(now: number): Substream | undefined {
    if (this.#phase !== "open") return undefined;
    try {
      const sub = this.#channel?.acceptSubstream(now);
      if (sub === undefined) throw this.#error("InvalidFrame", "sub-streams were not negotiated");
      this.#owe(sub);
      return sub;
    } catch (error) {
      this.#fail(this.#typed(error));
      return undefined;
    }
  }

  /** Bytes arrived on a sub-stream. */
  handleSubstreamBytes(sub: Substream, chunk: Uint8Array, now: number): void {
    const channel = this.#channel;
    if (this.#phase !== "open" || channel === undefined) return;
    this.#receivedAt = sub.receivedAt = now;
    channel.noteReceived(now);
    const { decoder } = sub;
    decoder.push(chunk);
    let frames = 0;
    try {
      while (!this.#failed && decoder.advance()) {
        channel.handleSubstreamBody(sub, decoder.bytes, decoder.start, decoder.end, now);
        decoder.release(false);
        frames++;
      }
    } catch (error) {
      this.#fail(this.#typed(error));
    } finally {
      channel.release();
    }
    this.#trackSubstream(sub, now, frames > 0);
  }

  /** The peer sends nothing more on a sub-stream. */
  handleSubstreamEnd(sub: Substream): void {
    if (this.#phase !== "open") return;
    this.#owing.delete(sub);
    if (sub.decoder.midFrame) {
      return this.#fail(this.#error("InvalidFrame", "a sub-stream ended inside a frame"));
    }
    sub.inEnd();
    // Without a frame nobody can say what it is for.
    if (sub.name === undefined) sub.leave();
    this.#channel?.checkSubstream(sub);
  }

  /** Our end has been written to a sub-stream. */
  handleSubstreamFinished(sub: Substream): void {
    sub.outEnd();
    this.#channel?.checkSubstream(sub);
  }

  /** The application takes messages again. */
  resume(now: number): void {
    if (!this.#held) return;
    this.#held = false;
    // Silence while we did not read says nothing of the peer.
    this.#receivedAt = now;
    this.#frameStartedAt = undefined;
    this.#advance(now);
  }

  /** The peer finished sending. */
  handleEnd(now: number): void {
    if (this.#phase === "failed") return;
    this.#ended = true;
    this.#advance(now);
  }

  /** Whether the peer finished sending, everything was delivered, and nothing was cut off. */
  get finished(): boolean {
    return this.#ended && this.#phase === "open" && this.#decoder.bufferedBytes === 0;
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    switch (this.#phase) {
      case "failed":
        return undefined;
      case "handshake":
        return this.#config!.handshakeDeadline;
      case "open":
        return this.#channel === undefined
          ? sooner(this.#frameDeadline(), sooner(this.#silenceDeadline(), this.#goneDeadline()))
          : sooner(
            sooner(this.#frameDeadline(), this.#substreamDeadline()),
            this.#channel.nextTimeout(),
          );
    }
  }

  /** Time has passed. */
  handleTimeout(now: number): void {
    if (this.#phase === "handshake") {
      if (now >= this.#config!.handshakeDeadline) this.#fail(this.#handshakeTimeout());
      return;
    }
    if (this.#phase !== "open") return;
    if (now >= (sooner(this.#frameDeadline(), this.#substreamDeadline()) ?? Infinity)) {
      return this.#fail(this.#error("Timeout", "a frame that had begun made no progress"));
    }
    if (this.#channel !== undefined) {
      const error = this.#channel.handleTimeout(now);
      if (error !== undefined) this.#fail(error);
      return;
    }
    if (now >= (this.#goneDeadline() ?? Infinity)) {
      return this.#fail(this.#error("ConnectionClosed", "the peer has been silent for too long"));
    }
    if (now >= (this.#silenceDeadline() ?? Infinity)) {
      this.#silenceTold = true;
      this.#sink.onSilent();
    }
  }

  #advance(now: number): void {
    // A handler that is called from here may call resume(): the loop below goes on by itself.
    if (this.#delivering) return;
    this.#delivering = true;
    let frames = 0;
    try {
      while (this.#phase !== "failed" && !this.#held) {
        if (this.#phase === "open" && !this.#takesMore()) {
          this.#held = true;
          break;
        }
        const channel = this.#channel;
        if (channel !== undefined) {
          if (!this.#decoder.advance()) break;
          this.#handleFrame(channel, now);
        } else {
          const body = this.#decoder.next();
          if (body === undefined) break;
          if (this.#phase === "handshake") this.#handleHandshake(body, now);
          else this.#handleMessage(body);
        }
        frames++;
      }
    } catch (error) {
      this.#fail(this.#typed(error));
    } finally {
      this.#delivering = false;
      this.#channel?.release();
    }
    this.#trackFrame(now, frames > 0);
    if (this.#ended && !this.#held) this.#handleCut();
  }

  #handleFrame(channel: Channel, now: number): void {
    const { bytes, start, end } = this.#decoder;
    // A dialer is established before the listener has judged its proof.
    if (bytes[start] === REJECT_BYTE && this.#dialed) {
      const late = lateRejection(bytes.subarray(start, end), this.#negotiated!.nodeId);
      if (late !== undefined) throw late;
    }
    const again = channel.handleBody(bytes, start, end, now);
    this.#decoder.release(again);
  }

  /** Versions without acknowledgements have only the socket to push back with. */
  #takesMore(): boolean {
    const channel = this.#channel;
    return channel?.resume ? !channel.blocked : this.#sink.wantsMessage();
  }

  #handleMessage(body: Uint8Array): void {
    const { version, maxMessageSize } = this.#negotiated!;
    const payload = version === 1 ? body : decodeBodyV2(body, this.#lz4, maxMessageSize);
    this.#sink.onMessage(payload);
  }

  #handleHandshake(body: Uint8Array, now: number): void {
    const negotiated = this.#handshaker?.handleFrame(body, now);
    if (negotiated === undefined) return;
    this.#handshaker = undefined;
    this.#establish(negotiated, now);
  }

  #newChannel(
    config: ConnectionConfig,
    { capabilities, maxMessageSize }: Negotiated,
    now: number,
  ): Channel {
    const lz4 = capabilities.has("lz4") ? config.lz4 : undefined;
    const zstd = capabilities.has("zstd") ? config.zstd : undefined;
    const wanted = config.compressMethod === "zstd" && zstd !== undefined ? "zstd" : undefined;
    const codec = new FrameCodec(shared({
      checksum: capabilities.has("checksum"),
      crc32: config.crc32,
      lz4,
      zstd,
      method: wanted ?? (lz4 !== undefined ? "lz4" : zstd !== undefined ? "zstd" : undefined),
      compressMinSize: config.compressMinSize,
      maxMessageSize,
    }));
    const link = new SinkLink(this.outbox, this.#sink);
    const resume = capabilities.has("resume");
    const { keepaliveMs, healthCheckMs } = config;
    // Numbers that overtake each other are only kept in order where they are acknowledged.
    const multistream = capabilities.has("multistream") && resume && capabilities.has("streams");
    const substreamFrameBytes = multistream ? maxMessageSize + FRAME_OVERHEAD[3] : undefined;
    const channel = { codec, resume, keepaliveMs, healthCheckMs, substreamFrameBytes };
    return new Channel(channel, link, this.#sink, now);
  }

  #establish(negotiated: Negotiated, now: number): void {
    this.#negotiated = negotiated;
    this.#phase = "open";
    const config = this.#config!;
    if (negotiated.capabilities.has("lz4")) this.#lz4 = config.lz4;
    const { maxMessageSize, version } = negotiated;
    this.#decoder.maxFrameBytes = maxMessageSize + FRAME_OVERHEAD[version];
    if (version === 3) {
      this.#channel = this.#newChannel(config, negotiated, now);
      this.#config = undefined;
    }
    this.#sink.onEstablished(negotiated);
  }

  /** The peer said it has finished: a frame that is only half there is an error, never delivered. */
  #handleCut(): void {
    if (this.#phase === "failed") return;
    if (this.#phase === "handshake") {
      const stage = this.#dialed
        ? "the listener closed the connection before it answered; it may have refused our " +
          "certificate, or expect TLS"
        : "the dialer closed the connection before its part of the handshake was complete";
      const { expectNodeId: peer } = this.#config!;
      const message = `Cannot complete the handshake: ${stage}`;
      // A listener that died, and one that refused our certificate, look the same from here.
      return this.#fail(new HandshakeError(message, undefined, { peer, retryable: true }));
    }
    if (this.#decoder.midFrame) {
      this.#fail(this.#error("InvalidFrame", "the connection ended inside a frame"));
    }
  }

  #trackFrame(now: number, begunAnew: boolean): void {
    if (this.#held || !this.#decoder.midFrame) this.#frameStartedAt = undefined;
    else if (begunAnew || this.#frameStartedAt === undefined) this.#frameStartedAt = now;
  }

  #trackSubstream(sub: Substream, now: number, begunAnew: boolean): void {
    if (!sub.decoder.midFrame && sub.name !== undefined) {
      if (sub.owedSince === undefined) return;
      sub.owedSince = undefined;
      this.#owing.delete(sub);
    } else if (begunAnew || sub.owedSince === undefined) {
      sub.owedSince = now;
      this.#owe(sub);
    }
  }

  #owe(sub: Substream): void {
    if (this.#owing === NONE_OWING) this.#owing = new Set();
    this.#owing.add(sub);
  }

  #frameDeadline(): number | undefined {
    if (this.#frameStartedAt === undefined) return undefined;
    return this.#deadlineOf(this.#receivedAt, this.#frameStartedAt);
  }

  /** That of the first sub-stream that makes no progress. */
  #substreamDeadline(): number | undefined {
    if (this.#owing.size === 0) return undefined;
    let first: number | undefined;
    for (const { receivedAt, owedSince } of this.#owing) {
      first = sooner(first, this.#deadlineOf(receivedAt, owedSince!));
    }
    return first;
  }

  #deadlineOf(receivedAt: number, since: number): number {
    const ioTimeoutMs = this.#ioTimeoutMs;
    return Math.min(receivedAt + ioTimeoutMs, since + ioTimeoutMs * WHOLE_FRAME_FACTOR);
  }

  #silenceDeadline(): number | undefined {
    const keepaliveMs = this.#config?.keepaliveMs;
    if (keepaliveMs === undefined || !this.#dialed || this.#silenceTold) return undefined;
    // While we don't read we are silent all the same, and the other side must hear of us.
    return Math.min(this.#receivedAt, this.#sentAt) + keepaliveMs;
  }

  /** A dialer that renews silent connections said so in its hello: then silence means it has gone. */
  #goneDeadline(): number | undefined {
    const interval = this.#negotiated?.keepaliveMs;
    if (interval === undefined || this.#dialed || this.#held) return undefined;
    return this.#receivedAt + interval * MISSED_INTERVALS;
  }

  #handshakeTimeout(): TransportError {
    return new TransportError("Timeout", "Cannot complete the handshake: it took too long", {
      peer: this.#config?.expectNodeId,
    });
  }

  #error(code: "Timeout" | "ConnectionClosed" | "InvalidFrame", problem: string): TransportError {
    return new TransportError(code, `Cannot go on with the connection: ${problem}`, {
      peer: this.#negotiated?.nodeId ?? this.#config?.expectNodeId,
    });
  }

  #typed(error: unknown): TransportError {
    if (error instanceof TransportError) return error;
    return new TransportError("InvalidFrame", "Cannot read from the connection: internal error", {
      cause: error,
    });
  }

  get #failed(): boolean {
    return this.#phase === "failed";
  }

  #fail(error: TransportError): void {
    if (this.#phase === "failed") return;
    this.#phase = "failed";
    this.#sink.onError(error);
  }
}

function sooner(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined) return b;
  return b === undefined || a < b ? a : b;
}

/** What the last connection had agreed on: most of an endpoint's agree on the same. */
let lastAgreed: FrameCodecConfig | undefined;

/** The same object for connections that agreed on the same one after the other. */
function shared(config: FrameCodecConfig): FrameCodecConfig {
  const last = lastAgreed;
  const same = last !== undefined && last.checksum === config.checksum &&
    last.crc32 === config.crc32 && last.lz4 === config.lz4 && last.zstd === config.zstd &&
    last.method === config.method && last.compressMinSize === config.compressMinSize &&
    last.maxMessageSize === config.maxMessageSize;
  return same ? last : lastAgreed = config;
}
