/** Fuzz targets: everything that reads one piece of bytes. */

import assert from "node:assert/strict";
import {
  type Agreement,
  agreeOnKeys,
  type PacketCrypto,
} from "../../src/protocol/datagram/encryption.ts";
import { judgeHelloPacket, readWelcome, welcome } from "../../src/protocol/datagram/greeting.ts";
import { DatagramLink } from "../../src/protocol/datagram/link.ts";
import * as packets from "../../src/protocol/datagram/packet.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import { HEADER_BYTES, PACKET } from "../../src/protocol/datagram/types.ts";
import { decodeEnvelope, encodeEnvelope } from "../../src/protocol/envelope.ts";
import { EnvelopeWindow } from "../../src/protocol/envelope_window.ts";
import { encodeFrame, FrameDecoder } from "../../src/protocol/frame.ts";
import {
  encodeWelcome,
  judgeHello,
  lateRejection,
  type LocalIdentity,
  parseAnswer,
  parseHello,
} from "../../src/protocol/handshake.ts";
import { checkLz4Block } from "../../src/protocol/lz4_block.ts";
import { decodeBodyV2 } from "../../src/protocol/message.ts";
import type { Negotiated } from "../../src/protocol/negotiate.ts";
import { Outbox } from "../../src/protocol/outbox.ts";
import { parseProof } from "../../src/protocol/proof.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { parseStrictJson } from "../../src/protocol/strict_json.ts";
import { identityProblem, readCertificate, useProblem } from "../../src/protocol/certificate.ts";
import { decompressPayload } from "../../src/protocol/v3/compression.ts";
import { Frame, FrameCodec } from "../../src/protocol/v3/frame_codec.ts";
import { readAcks, readCodeMessage, readGoaway } from "../../src/protocol/v3/payloads.ts";
import { KIND } from "../../src/protocol/v3/types.ts";
import { sha256 } from "../../src/runtime/ed25519.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { verifyEnvelope } from "../../src/envelope.ts";
import { dumpConfig, loadConfig } from "../../src/toml.ts";
import { PUBLIC_KEY, TIMESTAMP } from "../envelope/vectors.ts";
import { join } from "../bad_input/wire.ts";
import { identity } from "../protocol/identities.ts";
import { CERTIFICATES, DER_WORDS } from "./corpus/certificates.ts";
import { LZ4_BLOCKS, ZSTD_FRAMES } from "./corpus/compressed.ts";
import { CONFIGS, TOML_WORDS } from "./corpus/configs.ts";
import { ENVELOPES } from "./corpus/envelopes.ts";
import { CHUNKS, V2_BODIES, V3_BODIES } from "./corpus/frames.ts";
import { ANSWERS, HELLOS, JSON_WORDS, PROOFS } from "./corpus/handshakes.ts";
import { PACKETS, SEALED_PACKETS } from "./corpus/packets.ts";
import { attempt, pieces, type Target } from "./target.ts";

const MAX_FRAME_BYTES = 65_536;
const MAX_MESSAGE_BYTES = 1_048_576;
/** What a compressed payload may become here: its memory is no part of the bound. */
const UNPACKED = Infinity;
const MAX_DEPTH = 8;
const SEQUENCED_END = 10;
const NOW = 1_700_000_000_000;

const lz4 = await loadLz4();
const zstd = loadZstd();
const local: LocalIdentity = identity({
  nodeId: "node2",
  maxVersion: 3,
  capabilities: ["lz4", "zstd", "checksum", "resume", "streams"],
});

/** All of them. */
export const DECODERS: readonly Target[] = [
  {
    name: "FrameDecoder",
    corpus: CHUNKS,
    dictionary: [],
    framesFrom: 0,
    // Whole, and twice in pieces: there, bodies are copies, in buffers that grow.
    bytesPerByte: 12,
    run(input) {
      const whole = frames([input], input.length);
      assert.deepEqual(frames(pieces(input), input.length), whole, "pieces are read differently");
      const reused = frames(pieces(input), input.length, true);
      assert.deepEqual(reused, whole, "pieces are read differently in buffers used again");
      const again = whole.bodies.map(encodeFrame);
      const bytes = again.reduce((sum, frame) => sum + frame.length, 0);
      let at = 0;
      for (const frame of again) {
        assert.deepEqual(input.subarray(at, at + frame.length), frame, "not what was sent");
        at += frame.length;
      }
      assert.ok(bytes <= input.length);
    },
  },
  {
    name: "decodeBodyV2",
    corpus: V2_BODIES,
    dictionary: [],
    bytesPerByte: UNPACKED,
    run(input) {
      const payload = attempt(() => decodeBodyV2(input, lz4, MAX_MESSAGE_BYTES));
      assert.ok(payload === undefined || payload.length <= MAX_MESSAGE_BYTES);
      attempt(() => decodeBodyV2(input, undefined, MAX_MESSAGE_BYTES));
    },
  },
  {
    name: "FrameCodec",
    corpus: V3_BODIES,
    dictionary: [],
    bytesPerByte: UNPACKED,
    run(input) {
      for (const checksum of [false, true]) readFrame(codecOf(checksum), input);
    },
  },
  {
    name: "LZ4 block",
    corpus: LZ4_BLOCKS,
    dictionary: [],
    bytesPerByte: UNPACKED,
    run(input) {
      const payload = attempt(() => decompressPayload(input, "lz4", lz4, MAX_MESSAGE_BYTES));
      const size = sizeOf(input);
      const block = input.subarray(4);
      if (payload !== undefined) assert.deepEqual(payload, unpackLz4(block, size));
      else if (size > 0 && size <= MAX_MESSAGE_BYTES && block.length > 0) {
        assert.throws(() => checkLz4Block(block, size), { code: "Compression" });
      }
    },
  },
  {
    name: "Zstandard frame",
    corpus: ZSTD_FRAMES,
    dictionary: [],
    bytesPerByte: UNPACKED,
    run(input) {
      if (zstd === undefined) return;
      const payload = attempt(() => decompressPayload(input, "zstd", zstd, MAX_MESSAGE_BYTES));
      if (payload === undefined) return;
      assert.equal(payload.length, sizeOf(input));
      const packed = zstd.compress(payload);
      assert.deepEqual(decompressPayload(packed, "zstd", zstd, MAX_MESSAGE_BYTES), payload);
    },
  },
  {
    name: "hello",
    corpus: HELLOS,
    dictionary: JSON_WORDS,
    run(input) {
      const hello = attempt(() => parseHello(input));
      readJson(input);
      if (hello === undefined) return;
      assertSame(parseHello(rewritten(input)), hello);
      const replay = new ReplayWindow({ maxSkewMs: 300_000 });
      const verdict = judgeHello(hello, local, { wallClockMs: NOW, replay });
      if ("accept" in verdict) attempt(() => encodeWelcome(verdict.accept, local));
    },
  },
  {
    name: "welcome, reject",
    corpus: ANSWERS,
    dictionary: JSON_WORDS,
    run(input) {
      const answer = attempt(() => parseAnswer(input));
      readJson(input);
      const late = lateRejection(input, "node1");
      if (answer === undefined) return;
      assertSame(parseAnswer(rewritten(input)), answer);
      if (answer.type === "welcome") assert.equal(late, undefined);
      if (late !== undefined) assert.match(late.message, /^[ -~…]{1,2000}$/);
    },
  },
  {
    name: "proof",
    corpus: PROOFS,
    dictionary: JSON_WORDS,
    run(input) {
      const signature = attempt(() => parseProof(input));
      if (signature !== undefined) assert.equal(parseProof(rewritten(input)), signature);
    },
  },
  {
    name: "certificate",
    corpus: CERTIFICATES,
    dictionary: DER_WORDS,
    run(input) {
      const facts = attempt(() => readCertificate(input));
      if (facts === undefined) return;
      for (const by of ["CommonName", "SubjectAltName"] as const) {
        for (const nodeId of ["node1", ...facts.commonNames, ...facts.dnsNames]) {
          assert.match(identityProblem(facts, by, nodeId) ?? "none", /^[ -~…]+$/);
        }
      }
      useProblem(facts, "client", NOW);
      useProblem(facts, "server", NOW);
    },
  },
  {
    name: "envelope",
    corpus: ENVELOPES,
    dictionary: [],
    run(input) {
      const envelope = attempt(() => decodeEnvelope(input));
      const window = new EnvelopeWindow();
      const trustedKeys = { node1: PUBLIC_KEY };
      attempt(() => verifyEnvelope(input, { trustedKeys, now: TIMESTAMP, window }));
      if (envelope === undefined) return;
      assert.deepEqual(encodeEnvelope(envelope, () => envelope.signature), input);
    },
  },
  {
    name: "packet",
    corpus: PACKETS,
    dictionary: [],
    run: (input) => readPacket(input, undefined),
  },
  {
    name: "packet with keys",
    corpus: [...PACKETS, ...SEALED_PACKETS],
    dictionary: [],
    run: (input) => readPacket(input, gullibleSeal),
  },
  {
    name: "configuration in TOML",
    corpus: CONFIGS,
    dictionary: TOML_WORDS,
    run(input) {
      const options = attempt(() => loadConfig(new TextDecoder().decode(input)));
      if (options === undefined) return;
      const text = dumpConfig(options);
      assert.equal(dumpConfig(loadConfig(text)), text);
    },
  },
];

/** Bodies and error of a decoder that is fed these chunks. */
function frames(
  chunks: readonly Uint8Array[],
  bytes: number,
  reuses = false,
): { bodies: Uint8Array[]; error: string | undefined } {
  const decoder = new FrameDecoder({ maxFrameBytes: MAX_FRAME_BYTES });
  const bodies: Uint8Array[] = [];
  try {
    for (const chunk of chunks) {
      decoder.push(chunk);
      for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
        bodies.push(reuses ? body.slice() : body);
        if (reuses) decoder.release(true);
      }
      assert.ok(decoder.bufferedBytes <= bytes);
    }
    return { bodies, error: undefined };
  } catch (error) {
    attempt(() => {
      throw error;
    });
    return { bodies, error: String(error) };
  }
}

const AEAD_TAG = new Uint8Array(16);
const PARTY = { nodeId: "node1", tag: AEAD_TAG, publicKey: new Uint8Array(32) };

/** Takes everything for sealed, and takes the seal off: what lies behind is to be read, too. */
const gullible: PacketCrypto = {
  maxPackets: 2 ** 23,
  newExchange: () => ({
    publicKey: PARTY.publicKey,
    agree: (key) => key[0] === 0 ? undefined : key,
  }),
  cipher: () => ({
    seal: (_, header, bytes) => join(header, bytes, AEAD_TAG),
    open: (_, __, sealed) => sealed.subarray(0, -AEAD_TAG.length),
  }),
};

const gullibleSeal = new PacketSeal({
  nodeId: "node2",
  sign: () => new Uint8Array(64),
  verify: () => true,
  trustedKeys: new Map([["node1", [PARTY.publicKey]]]),
  maxAgeMs: Infinity,
  encryption: gullible,
});

/** A packet, read as what it says it is. */
function readPacket(input: Uint8Array, seal: PacketSeal | undefined): void {
  const prefix = packets.readPrefix(input);
  if (prefix === undefined) return;
  const { kind, tag } = prefix;
  const greeter = { local, authToken: undefined, seal, sha256 };
  switch (kind) {
    case PACKET.hello: {
      const hello = attempt(() => packets.readHello(input));
      if (hello === undefined) return;
      const verdict = judgeHelloPacket(greeter, tag, hello, TIMESTAMP);
      if ("accept" in verdict) {
        const { accept: negotiated, publicKey } = verdict;
        assert.equal(publicKey !== undefined, seal !== undefined);
        const parts = { ownTag: tag, wallClockMs: NOW, nonce: AEAD_TAG, generation: 1 };
        const welcomed = welcome(greeter, { tag, negotiated, publicKey }, parts);
        if ("keys" in welcomed) assert.equal(welcomed.keys !== undefined, seal !== undefined);
      }
      const again = packets.encodeHelloPacket(tag, hello);
      assert.ok(again.length <= input.length);
      assert.deepEqual(packets.readHello(again), hello);
      return;
    }
    case PACKET.retry: {
      const cookie = attempt(() => packets.readRetry(input));
      if (cookie !== undefined) assert.deepEqual(packets.encodeRetry(tag, cookie), input);
      return;
    }
    case PACKET.welcome: {
      const exchange = seal?.encryption.newExchange();
      const greeted = { nodeId: "node1", tag, exchange };
      const read = attempt(() => readWelcome(greeter, greeted, input, TIMESTAMP));
      if (read !== undefined) assert.equal(read.keys !== undefined, seal !== undefined);
      return;
    }
  }
  readLinkPacket(input, kind, tag, seal);
}

function readLinkPacket(
  input: Uint8Array,
  kind: number,
  tag: Uint8Array,
  seal: PacketSeal | undefined,
): void {
  const sent: Uint8Array[] = [];
  const exchange = { publicKey: PARTY.publicKey, agree: () => new Uint8Array(32).fill(1) };
  const agreement: Agreement = { dialer: PARTY, listener: PARTY, exchange, dialed: false };
  const link = new DatagramLink({
    negotiated: { nodeId: "node1", version: 3 } as Negotiated,
    ownTag: tag,
    peerTag: tag,
    dialed: false,
    address: "here",
    seal,
    keys: seal && agreeOnKeys(seal.encryption, sha256, agreement),
    keepaliveMs: 1000,
    randomBytes: (length) => new Uint8Array(length),
    send: (packet) => sent.push(packet) > 0,
  }, 0);
  const body = link.open(input, TIMESTAMP, 0);
  if (typeof body === "string") return;
  assert.ok(body.length <= input.length - HEADER_BYTES);
  assert.equal(link.open(input, TIMESTAMP, 0), "replayed");
  link.cameFrom("there", input.length, TIMESTAMP, 0);
  attempt(() => link.handlePing(body, "there", TIMESTAMP));
  for (const packet of sent) assert.ok(packet.length <= input.length, "more than came");
  readPacketBody(kind, body);
}

function readPacketBody(kind: number, body: Uint8Array): void {
  if (kind === PACKET.data) attempt(() => packets.readData(body));
  if (kind === PACKET.request) attempt(() => packets.readRequest(body));
  if (kind === PACKET.bye) attempt(() => readGoaway(body));
  if (kind < PACKET.response || kind > PACKET.cancel) return;
  const answer = attempt(() => packets.readAnswer(body));
  if (answer === undefined) return;
  assert.deepEqual(packets.encodeAnswer(answer.id, answer.rest), body);
  if (kind === PACKET.error) attempt(() => readCodeMessage(answer.rest));
}

function codecOf(checksum: boolean, packs = true): FrameCodec {
  return new FrameCodec({
    checksum,
    crc32,
    lz4: packs ? lz4 : undefined,
    zstd: packs ? zstd : undefined,
    method: undefined,
    compressMinSize: 256,
    maxMessageSize: MAX_MESSAGE_BYTES,
  });
}

function readFrame(codec: FrameCodec, body: Uint8Array): void {
  const frame = attempt(() => codec.decode(body, new Frame()));
  if (frame === undefined) return;
  const { kind, payload } = frame;
  if (kind === KIND.ack) readAcks(payload, (lane, id) => assert.ok(lane <= 2 && id >= 0));
  if (kind === KIND.goaway) assert.ok(readGoaway(payload).reason.length <= 200);
  if (kind >= SEQUENCED_END && kind < KIND.routed) return;
  const application = attempt(() => codec.application(frame));
  if (application !== undefined && frame.topic) {
    const { topic = "", payload: rest } = application;
    const { length } = new TextEncoder().encode(topic);
    assert.equal(length, payload[0], "a topic of another length");
    const before = 1 + length + (kind === KIND.request ? 4 : 0);
    assert.equal(before + rest.length, payload.length, "topic and payload are not all of it");
  }
  if (application !== undefined && (kind === KIND.error || kind === KIND.streamReset)) {
    const said = attempt(() => readCodeMessage(application.payload));
    if (said !== undefined) assert.match(said.code, /^[ -~…]+$/);
  }
  const outbox = new Outbox();
  codec.encodeFrame(outbox, frame);
  const again = codec.decode(outbox.take()!.subarray(4), new Frame());
  assert.deepEqual({ ...again, wireBytes: 0 }, { ...frame, wireBytes: 0 });
}

function readJson(input: Uint8Array): void {
  const value = attempt(() => parseStrictJson(input, MAX_DEPTH));
  if (value === undefined) return;
  assert.deepEqual(value, JSON.parse(new TextDecoder().decode(input)));
  assert.ok(depthOf(value) <= MAX_DEPTH, "deeper than it may be");
}

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

/** The same JSON, as we would write it. */
function rewritten(input: Uint8Array): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(JSON.parse(new TextDecoder().decode(input))));
}

/** Equal, where 0 is -0 and what is undefined is absent, as in JSON. */
function assertSame(a: unknown, b: unknown): void {
  assert.equal(JSON.stringify(a), JSON.stringify(b));
}

function sizeOf(packed: Uint8Array): number {
  return packed.length < 4 ? 0 : new DataView(packed.buffer, packed.byteOffset).getUint32(0, true);
}

/** LZ4 as simple as can be, for a block that was found to be right. */
function unpackLz4(block: Uint8Array, size: number): Uint8Array {
  const output: number[] = [];
  let at = 0;
  const length = (nibble: number): number => {
    let sum = nibble;
    if (nibble < 15) return sum;
    let byte: number;
    do sum += byte = block[at++]!; while (byte === 255);
    return sum;
  };
  for (;;) {
    const token = block[at++]!;
    for (let left = length(token >>> 4); left > 0; left--) output.push(block[at++]!);
    if (at === block.length) break;
    const offset = block[at]! | block[at + 1]! << 8;
    at += 2;
    for (let left = length(token & 15) + 4; left > 0; left--) output.push(output.at(-offset)!);
  }
  assert.equal(output.length, size);
  return Uint8Array.from(output);
}
