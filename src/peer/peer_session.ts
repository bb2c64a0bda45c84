/**
 * The session with one peer: which connections belong to it, when it begins and when it ends.
 *
 * A session is between two processes, and each of them counts how many sessions with the other it
 * has ended by its own decision (its generation). Both incarnations and both generations together
 * name a session, so two handshakes that cross each other find the same one.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import type { Negotiated, SessionClaim, SessionOffer } from "../protocol/handshake.ts";
import type { Rejection } from "../protocol/handshaker.ts";
import type { Backlog } from "../protocol/v3/backlog.ts";
import type { Received } from "../protocol/v3/receive_lane.ts";
import {
  type Ended,
  type MessageSeal,
  type Pace,
  Session,
  type SessionSink,
} from "../protocol/v3/session.ts";
import type { Kind, Lane } from "../protocol/v3/types.ts";
import type { Environment } from "../runtime/environment.ts";
import type { Driver } from "./driver.ts";

/** A probe of the other connections when a new one comes: the peer may have lost them. */
export const PROBE_MS = 2_000;
const SESSION_ID_BYTES = 16;
/** Names of a session that are remembered: a peer may make up as many as it likes. */
const MAX_NAMES = 64;
/**
 * Requests and answers that are written at once: with 64 under way, 1.3 to 2 times as many are
 * answered as with one write a turn, on each runtime.
 */
const REQUEST_BATCH = 16;
/** What a new session has received, lane by lane. */
export const NOTHING: readonly [number, number, number] = [0, 0, 0];
const NO_IDS: readonly string[] = [];
const NO_SESSIONS: readonly Session[] = [];

/** What a session needs of the peer around it. */
export interface PeerSessionHost {
  readonly nodeId: string;
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly backlog: Backlog;
  /** Limits of what is written; undefined: none. */
  readonly pace: Pace | undefined;
  /** What messages are signed and verified with; undefined where that is not configured. */
  readonly seal: MessageSeal | undefined;
  /** A number that is higher than every generation before it. */
  nextGeneration(): number;
  /** Whether a message of the peer can be taken now. */
  takesMessage(): boolean;
  /** A message of the peer. */
  receive(lane: Lane, topic: string | undefined, payload: Uint8Array): void;
  /** A request, a response or a frame of a stream. */
  onOther(received: Received, now: number): void;
  /** Whether a frame that asks for something may be taken at all; throws where it may not. */
  checkLoad(kind: number): void;
  onSent(payloadBytes: number): void;
  /** There is more to write than one connection should have under way. */
  onBusy(): void;
  /** A copy from the backlog was written, or acknowledged: its memory may be used again. */
  onPayloadFree(payload: Uint8Array): void;
  /** There may be room to send. */
  onRoom(): void;
  /** A session begins; what asks and streams may begin. */
  onBegin(session: Session, negotiated: Negotiated): void;
  /** A session has ended: these messages were written and never acknowledged. */
  onEnd(session: Session, ended: readonly Ended[], error: TransportError): void;
  /** Deadlines may have come nearer. */
  onTimer(): void;
}

/** What is known of the process at the other end of the session. */
interface Other {
  readonly incarnation: string | undefined;
  readonly generation: number | undefined;
}

/** The session with one peer, whichever it is at the time. */
export class PeerSession {
  readonly #host: PeerSessionHost;
  #session: Session | undefined;
  #other: Other = { incarnation: undefined, generation: undefined };
  #ids: readonly string[] = NO_IDS;
  /** Those that no session had before: what was received under them was received in this one. */
  #ownIds: readonly string[] = NO_IDS;
  /** Whether the peer has shown that it knows the session. */
  #confirmed = false;
  #beganAt = 0;
  #retired = false;
  #distrust: TransportError | undefined;
  /** The name of the session that the peer surely knows. */
  #claimId: string | undefined;
  #generation: number;
  /** Sessions without `resume`, each of one connection. */
  #single: Map<Driver, Session> | undefined;
  /** Sessions that have ended and whose last messages the application has not taken. */
  #past = NO_SESSIONS;

  /** Without a session. `generation` is at least that of any session before. */
  constructor(host: PeerSessionHost, generation: number) {
    this.#host = host;
    this.#generation = generation;
  }

  /** The session that messages go out on; undefined where there is none. */
  get current(): Session | undefined {
    return this.#session ?? first(this.#single?.values());
  }

  /** Whether messages of earlier sessions still wait for the application. */
  get hasPast(): boolean {
    return this.#past.length > 0;
  }

  /** Whether messages were received that the application has not taken. */
  get holds(): boolean {
    return this.hasPast || (this.current?.heldMessages ?? 0) > 0;
  }

  /** What our hello says. */
  claim(): { claim: SessionClaim | undefined; generation: number } {
    const session = this.#session;
    const id = this.#claimId;
    const claim = session === undefined || id === undefined
      ? undefined
      : { id, received: session.received };
    return { claim, generation: this.#generation };
  }

  /** Whether a hello may come in as far as sessions go. */
  judge(negotiated: Negotiated, verified: boolean): Rejection | undefined {
    const { incarnation, sessionGeneration, claim } = negotiated;
    if (this.#session === undefined || incarnation !== this.#other.incarnation) return undefined;
    const { generation } = this.#other;
    if (sessionGeneration === undefined || generation === undefined) return undefined;
    if (sessionGeneration < generation) {
      return { code: "REPLAYED", reason: "the session that this hello knew has ended" };
    }
    // Where nobody proves who they are, the id is what shows that it is the same process.
    // Dials that cross each other, and welcomes that are lost, leave each side with its own id.
    const named = claim !== undefined && this.#ids.includes(claim.id);
    const known = named || !this.#confirmed || this.#young;
    if (sessionGeneration > generation || verified || known) return undefined;
    return { code: "AUTH_FAILED", reason: "the session is another one" };
  }

  /** Whether a hello of the process that we know would end the session. */
  replacedBy(negotiated: Negotiated): boolean {
    return this.#session !== undefined && negotiated.incarnation === this.#other.incarnation &&
      this.#matching(negotiated) === undefined;
  }

  /** What our welcome says; nothing changes by it. */
  offer(negotiated: Negotiated): { offer: SessionOffer; generation: number } {
    const session = this.#matching(negotiated);
    const { claim } = negotiated;
    const offer = session === undefined
      ? { id: newSessionId(this.#host.environment), resumed: false, received: NOTHING }
      : { id: claim?.id ?? this.#claimId!, resumed: true, received: session.received };
    return { offer, generation: this.#generation };
  }

  /**
   * Takes in a connection whose handshake is complete.
   *
   * @throws {TransportError} Its handshake does not fit the session that there is by now.
   */
  join(driver: Driver): void {
    const negotiated = driver.negotiated!;
    const now = this.#host.environment.now();
    const channel = driver.channel!;
    if (!channel.resume) return this.#joinSingle(driver, negotiated, now);
    const offer = negotiated.session!;
    let session = this.#matching(negotiated);
    this.#checkOffer(driver, offer, session, negotiated);
    if (session === undefined) {
      if (this.#session !== undefined) this.#endCurrent(this.#endedBy(negotiated));
      session = this.#begin(negotiated, now);
    }
    // A hello does not say which process it means: under another name, it may be one before us.
    const { claim } = negotiated;
    const sure = driver.dialed || claim !== undefined && this.#ownIds.includes(claim.id);
    if (this.#ids.length < MAX_NAMES) this.#ids = withId(this.#ids, offer.id);
    if (!offer.resumed) {
      const only = this.#ids.length === 1 && this.#ownIds.length === 0;
      this.#ownIds = only ? this.#ids : withId(this.#ownIds, offer.id);
    }
    if (driver.dialed || claim !== undefined) this.#claimId = offer.id;
    else this.#claimId ??= offer.id;
    if (driver.dialed || claim !== undefined) this.#confirmed = true;
    const received = driver.dialed ? offer.received : claim?.received;
    for (const other of session.channels) other.probe(PROBE_MS, now);
    session.attach(channel, offer.resumed && sure ? received! : NOTHING, now);
    this.#host.onTimer();
  }

  /** A connection is gone. */
  leave(driver: Driver): void {
    const { channel } = driver;
    if (channel === undefined) return;
    const now = this.#host.environment.now();
    const single = this.#single?.get(driver);
    if (single !== undefined) {
      this.#single?.delete(driver);
      single.detach(channel, now);
      const text = `Cannot go on with the connection to ${this.#host.nodeId}: it is gone`;
      this.#finish(single, new TransportError("ConnectionClosed", text));
    } else {
      this.#session?.detach(channel, now);
      if (this.#distrust !== undefined) this.end(this.#distrust);
    }
    this.#distrust = undefined;
  }

  /** The session will be ended by our own decision: the next one is another, even before that. */
  retire(): void {
    if (this.#session === undefined || this.#retired) return;
    this.#retired = true;
    this.#generation = this.#host.nextGeneration();
  }

  /** Ends the session by our own decision. */
  end(error: TransportError): void {
    this.retire();
    this.#endCurrent(error);
  }

  /** Ends it because the peer has: its process is another one, or speaks no sessions any more. */
  endByPeer(error: TransportError): void {
    this.#endCurrent(error);
  }

  /** The application takes messages again. */
  release(): void {
    const now = this.#host.environment.now();
    while (this.#past.length > 0) {
      const past = this.#past[0]!;
      past.release(now);
      if (past.heldMessages > 0) return;
      this.#past = this.#past.filter((session) => session !== past);
    }
    this.#session?.release(now);
    for (const session of this.#single?.values() ?? []) session.release(now);
  }

  /** Gives up what was never acknowledged: its sender knows that it may not have arrived. */
  forgetPast(): void {
    if (this.#past.length > 0) this.#past = this.#past.filter(({ config }) => !config.resume);
  }

  /** Everything written to a connection has left the process. */
  settle(driver: Driver): void {
    this.#single?.get(driver)?.settle(this.#host.environment.now());
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number {
    let at = this.#session?.nextTimeout() ?? Infinity;
    if (this.#single === undefined) return at;
    for (const session of this.#single.values()) {
      at = Math.min(at, session.nextTimeout() ?? Infinity);
    }
    return at;
  }

  /** Time has passed. */
  handleTimeout(now: number): void {
    this.#session?.handleTimeout(now);
  }

  get #young(): boolean {
    const { environment, options } = this.#host;
    return environment.now() - this.#beganAt < 2 * options.connectTimeoutMs;
  }

  /** The present session, if it is the one that these two processes have. */
  #matching({ incarnation, sessionGeneration, claim, session }: Negotiated): Session | undefined {
    if (this.#session === undefined || incarnation !== this.#other.incarnation) return undefined;
    if (sessionGeneration !== this.#other.generation) return undefined;
    if (sessionGeneration !== undefined) return this.#session;
    // A peer that counts no generations says by the id whether it knows the session.
    const id = claim?.id ?? (session?.resumed ? session.id : undefined);
    return id !== undefined && this.#ids.includes(id) ? this.#session : undefined;
  }

  /** Between the two halves of a handshake, sessions may have begun or ended. */
  #checkOffer(
    driver: Driver,
    offer: SessionOffer,
    session: Session | undefined,
    { incarnation }: Negotiated,
  ): void {
    const { nodeId } = this.#host;
    const forgotten = session === undefined && offer.received.some((number) => number > 0);
    if (forgotten && incarnation !== this.#other.incarnation) this.#renounce();
    const changed = driver.generation !== this.#generation;
    if (!forgotten && !changed) return;
    throw new HandshakeError(
      `Cannot use the connection to ${nodeId}: the session ended during the handshake`,
      undefined,
      { peer: nodeId, retryable: true },
    );
  }

  /**
   * Another process of several with this node id (docs/unix.md) goes on with a session that we have
   * left for one with its neighbour. By the next hello's generation both know that theirs is over.
   */
  #renounce(): void {
    const { nodeId } = this.#host;
    this.#generation = this.#host.nextGeneration();
    const text = `Cannot go on with the session with ${nodeId}: another process answers for it`;
    this.#endCurrent(new TransportError("ConnectionClosed", text, { peer: nodeId }));
  }

  #begin(negotiated: Negotiated, now: number): Session {
    const session = this.#newSession(negotiated, true, now);
    this.#session = session;
    this.#other = {
      incarnation: negotiated.incarnation,
      generation: negotiated.sessionGeneration,
    };
    this.#ids = this.#ownIds = NO_IDS;
    this.#claimId = undefined;
    this.#confirmed = this.#retired = false;
    this.#beganAt = now;
    this.#host.onBegin(session, negotiated);
    return session;
  }

  #joinSingle(driver: Driver, negotiated: Negotiated, now: number): void {
    if (this.#session !== undefined) {
      const text =
        `Cannot go on with the session with ${this.#host.nodeId}: it resumes none any more`;
      this.#endCurrent(new TransportError("ConnectionClosed", text));
    }
    const session = this.#newSession(negotiated, false, now);
    const singles = this.#single ??= new Map();
    const isFirst = singles.size === 0;
    singles.set(driver, session);
    if (isFirst) this.#host.onBegin(session, negotiated);
    session.attach(driver.channel!, NOTHING, now);
  }

  #newSession(negotiated: Negotiated, resume: boolean, now: number): Session {
    const host = this.#host;
    const { options, backlog } = host;
    const ear = new SessionEar(this, host);
    const session = new Session(
      {
        resume,
        seal: negotiated.capabilities.has("signed") ? this.#watched(host.seal) : undefined,
        maxMessageSize: negotiated.maxMessageSize,
        peerWindow: negotiated.receiveWindow,
        receiveWindow: options.receiveWindow,
        strategy: options.pool.strategy,
        backlog,
        pace: host.pace,
        // Whoever delays batches wants them large.
        requestBatch: options.batchDelayMs > 0 ? undefined : REQUEST_BATCH,
        allocate: host.environment.allocate,
      },
      ear,
      now,
    );
    ear.session = session;
    return session;
  }

  /** A message that is not to be trusted ends the session: its sender must not believe it arrived. */
  #watched(seal: MessageSeal | undefined): MessageSeal | undefined {
    if (seal === undefined) return undefined;
    return {
      overhead: seal.overhead,
      seal: (lane, payload, around) => seal.seal(lane, payload, around),
      unseal: (payload) => seal.unseal(payload),
      open: (payload, around) => {
        try {
          return seal.open(payload, around);
        } catch (error) {
          this.#distrust = error as TransportError;
          throw error;
        }
      },
    };
  }

  /** Whether messages of an earlier session go first. */
  waits(session: Session | undefined): boolean {
    const past = this.#past;
    return past.length > 0 && (session === undefined || !past.includes(session));
  }

  /** The peer has shown that it knows the session. */
  confirm(): void {
    this.#confirmed = true;
  }

  #endCurrent(error: TransportError): void {
    const session = this.#session;
    if (session === undefined) return;
    this.#session = undefined;
    this.#ids = this.#ownIds = NO_IDS;
    this.#claimId = undefined;
    this.#finish(session, error);
  }

  #finish(session: Session, error: TransportError): void {
    const ended = session.end();
    if (session.heldMessages > 0) this.#past = [...this.#past, session];
    this.#host.onEnd(session, ended, error);
  }

  #endedBy({ incarnation }: Negotiated): TransportError {
    const { nodeId } = this.#host;
    const why = incarnation === this.#other.incarnation
      ? "the peer has ended it"
      : "the peer was started again";
    return new TransportError(
      "ConnectionClosed",
      `Cannot go on with the session with ${nodeId}: ${why}`,
      { peer: nodeId },
    );
  }
}

/** What a session tells. */
class SessionEar implements SessionSink {
  session: Session | undefined;
  readonly #owner: PeerSession;
  readonly #host: PeerSessionHost;

  constructor(owner: PeerSession, host: PeerSessionHost) {
    this.#owner = owner;
    this.#host = host;
  }

  wantsMessage(): boolean {
    return this.#host.takesMessage() && !this.#owner.waits(this.session);
  }

  onMessage(lane: Lane, topic: string | undefined, payload: Uint8Array): void {
    this.#owner.confirm();
    this.#host.receive(lane, topic, payload);
  }

  onOther(received: Received, now: number): void {
    this.#owner.confirm();
    this.#host.onOther(received, now);
  }

  checkLoad(kind: Kind): void {
    this.#host.checkLoad(kind);
  }

  onRoom(): void {
    this.#owner.confirm();
    this.#host.onRoom();
  }

  onSent(payloadBytes: number): void {
    this.#host.onSent(payloadBytes);
  }

  onPayloadFree(payload: Uint8Array): void {
    this.#host.onPayloadFree(payload);
  }

  onBusy(): void {
    this.#host.onBusy();
  }

  onTimer(): void {
    this.#host.onTimer();
  }
}

/** 32 random hex digits. */
export function newSessionId(environment: Environment): string {
  const bytes = environment.randomBytes(SESSION_ID_BYTES);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** As short as can be: there is one name, mostly, of each peer. */
function withId(ids: readonly string[], id: string): readonly string[] {
  if (ids.length === 0) return [id];
  return ids.includes(id) ? ids : [...ids, id];
}

function first<T>(values: Iterable<T> | undefined): T | undefined {
  if (values === undefined) return undefined;
  for (const value of values) return value;
  return undefined;
}
