/** One connection with all that hangs on it, fed with bytes: no sockets, no clock. */

import assert from "node:assert/strict";
import { Connection, type ConnectionSink } from "../../src/protocol/connection.ts";
import type { Capability, Negotiated } from "../../src/protocol/handshake.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { Backlog } from "../../src/protocol/v3/backlog.ts";
import { Session } from "../../src/protocol/v3/session.ts";
import { Exchange } from "../../src/peer/exchange.ts";
import { Handlers } from "../../src/peer/requests.ts";
import type { StreamCore } from "../../src/protocol/v3/stream_core.ts";
import { StreamHandlers } from "../../src/peer/stream_handlers.ts";
import { TransportError } from "../../src/errors.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { join } from "../bad_input/wire.ts";
import { identity } from "../protocol/identities.ts";
import { hex } from "../protocol/wire_bytes.ts";

/** How a conversation goes. */
export interface Manner {
  readonly role: "dialer" | "listener";
  /** What our side offers; compression makes memory of its own. */
  readonly capabilities: readonly Capability[];
  readonly maxMessageSize: number;
  /** The application takes nothing before the end. */
  readonly holds: boolean;
}

/** What a conversation led to. */
export interface Outcome {
  /** Messages, what else was told, and the error. */
  readonly events: readonly string[];
  /** What was written, as it would have left. */
  readonly written: Uint8Array;
}

const NOW = 1_700_000_000_000;
const HOUR_MS = 3_600_000;
const RECEIVE_WINDOW = 65_536;
const MAX_STREAMS = 4;
const SESSION_ID = "0123456789abcdef".repeat(2);

const lz4 = await loadLz4();
const zstd = loadZstd();

/** Feeds a connection with these chunks, then with the end. */
export function converse(manner: Manner, chunks: readonly Uint8Array[]): Outcome {
  const side = new Side(manner);
  let received = 0;
  for (const chunk of chunks) {
    received += chunk.length;
    side.connection.handleBytes(chunk, 0);
    side.flush();
    assert.ok(side.connection.undeliveredBytes <= received, "more is kept than came");
  }
  side.finish();
  return { events: side.events, written: join(...side.written) };
}

/** Our side. */
class Side implements ConnectionSink {
  readonly connection: Connection;
  readonly events: string[] = [];
  readonly written: Uint8Array[] = [];
  readonly writable = true;
  readonly #backlog = new Backlog();
  /** What the application was given, and what it was then. */
  readonly #kept: { readonly bytes: Uint8Array; readonly sum: number }[] = [];
  readonly #streams: StreamCore[] = [];
  readonly #exchange: Exchange;
  readonly #manner: Manner;
  #session: Session | undefined;
  #holds: boolean;
  #failed = false;

  constructor(manner: Manner) {
    this.#manner = manner;
    this.#holds = manner.holds;
    this.#exchange = this.#newExchange();
    const { role, capabilities, maxMessageSize } = manner;
    this.connection = new Connection(
      {
        role,
        local: identity({ nodeId: "node2", maxVersion: 3, capabilities, maxMessageSize }),
        nonce: hex("000102030405060708090a0b0c0d0e0f"),
        expectNodeId: role === "dialer" ? "node1" : undefined,
        wallClockOffset: NOW,
        replay: new ReplayWindow({ maxSkewMs: 300_000 }),
        claimSession: () => ({ claim: undefined, generation: 0 }),
        handshakeDeadline: 5_000,
        ioTimeoutMs: 30_000,
        keepaliveMs: 30_000,
        healthCheckMs: undefined,
        lz4,
        zstd,
        compressMethod: "lz4",
        compressMinSize: 256,
        crc32,
      },
      this,
      0,
    );
  }

  /** The application takes what there is, the peer has finished, time passes, the session ends. */
  finish(): void {
    this.#holds = false;
    this.connection.resume(0);
    this.#session?.release(0);
    this.connection.resume(0);
    this.connection.handleEnd(0);
    for (const stream of this.#streams) this.#take("stream", stream.read());
    for (const { bytes, sum } of this.#kept) assert.equal(crc32(bytes), sum, "bytes were reused");
    this.#session?.handleTimeout(25);
    this.#exchange.handleTimeout(HOUR_MS);
    this.flush();
    const channel = this.connection.channel;
    if (channel !== undefined) this.#session?.detach(channel, 0);
    this.connection.handleTimeout(HOUR_MS);
    this.#exchange.end(new TransportError("ConnectionClosed", "Cannot go on: it is over"));
    this.#session?.end();
  }

  onIdentity(): undefined {}

  onHello(): undefined {}

  offerSession() {
    const offer = { id: SESSION_ID, resumed: false, received: [0, 0, 0] } as const;
    return { offer, generation: 0 };
  }

  onEstablished(negotiated: Negotiated): void {
    this.#tell(`established ${negotiated.version} ${[...negotiated.capabilities]}`);
    const channel = this.connection.channel;
    if (channel === undefined) return;
    const session = this.#newSession(negotiated, channel.resume);
    this.#session = session;
    this.#exchange.begin(session, negotiated);
    session.attach(channel, negotiated.session?.received ?? [0, 0, 0], 0);
  }

  wantsMessage(): boolean {
    return !this.#holds;
  }

  onMessage(payload: Uint8Array): void {
    this.#take("message", payload);
  }

  onSilent(): void {
    this.#tell("silent");
  }

  onSuspect(suspect: boolean): void {
    this.#tell(`suspect ${suspect}`);
  }

  onGoaway(code: number): void {
    this.#tell(`goaway ${code}`);
  }

  onDrained(): void {
    this.#tell("drained");
  }

  flush(): void {
    const chunk = this.connection.outbox.take();
    if (chunk === undefined) return;
    this.connection.channel?.seal(chunk);
    this.written.push(chunk);
  }

  flushSoon(): void {}

  onError(error: TransportError): void {
    assert.ok(error instanceof TransportError, String(error));
    // An error that nobody expected is wrapped: here it is what we look for.
    if (error.message.includes("internal error")) throw error.cause ?? error;
    assert.match(error.message, /^[ -~…]{1,600}$/);
    assert.ok(!this.#failed, "two errors");
    this.#failed = true;
    this.#tell(`${error.code}: ${error.message}`);
  }

  #newSession({ maxMessageSize, receiveWindow }: Negotiated, resume: boolean): Session {
    return new Session(
      {
        resume,
        seal: undefined,
        maxMessageSize,
        peerWindow: receiveWindow,
        receiveWindow: RECEIVE_WINDOW,
        strategy: "first-available",
        backlog: this.#backlog,
      },
      {
        wantsMessage: () => !this.#holds,
        onMessage: (lane, topic, payload) => {
          assert.ok(payload.length <= this.#manner.maxMessageSize, "a message above the limit");
          this.#take(`${lane} ${topic}`, payload);
        },
        onOther: (received, now) => {
          this.#tell(`kind ${received.kind} ${received.lane} ${received.id}`);
          this.#exchange.handle(received, now);
        },
        checkLoad: (kind) => this.#exchange.checkLoad(kind),
        onRoom() {},
        onSent() {},
        onPayloadFree() {},
        onBusy() {},
        onTimer() {},
      },
      0,
    );
  }

  #newExchange(): Exchange {
    const handlers = new Handlers();
    handlers.handle("get", ({ payload }) => {
      this.#take("request", payload);
      return new Promise(() => {});
    }, { concurrency: 8 });
    const streamHandlers = new StreamHandlers();
    // The application has them, and reads nothing before the end.
    streamHandlers.dispatch = (core) => {
      if (core.topic === "file") this.#take("open", core.payload);
      else core.reset("NO_HANDLER", "nobody takes streams of this topic");
      this.#streams.push(core);
    };
    return new Exchange("node1", this.#backlog, {
      handlers,
      streamHandlers,
      maxMessageSize: this.#manner.maxMessageSize,
      maxRequests: 16,
      maxStreams: MAX_STREAMS,
      requestTimeoutMs: 30_000,
      wallClock: () => NOW,
      onHandlerError: (_, error) => {
        throw error;
      },
      onRefused: () => this.#tell("refused"),
    }, {
      now: () => 0,
      session: () => this.#session,
      unconnected: () => undefined,
      onTimer() {},
      onFreed() {},
    });
  }

  #take(what: string, payload: Uint8Array): void {
    const sum = crc32(payload);
    this.#kept.push({ bytes: payload, sum });
    this.#tell(`${what} ${payload.length} ${sum}`);
  }

  #tell(event: string): void {
    this.events.push(event);
  }
}
