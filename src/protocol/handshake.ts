/**
 * The handshake of the protocol (docs/protocol.md, section 2): the dialer sends a hello, the
 * listener judges it and answers with welcome or reject, the dialer checks the welcome. Nothing
 * here has a clock, randomness or a socket: they come in as arguments.
 *
 * @module
 */

export { encodeHello, type Hello, type HelloDetails, parseHello } from "./hello.ts";
export { type JudgeContext, judgeHello, type Verdict } from "./judge_hello.ts";
export type { Capability, LocalIdentity, Negotiated, ProtocolVersion } from "./negotiate.ts";
export { acceptWelcome, type AnswerContext } from "./accept_welcome.ts";
export { encodeReject, lateRejection, type Reject, rejectedBy } from "./reject.ts";
export type { LaneNumbers, SessionClaim, SessionOffer } from "./session_claim.ts";
export {
  type Agreement,
  encodeWelcome,
  parseAnswer,
  type Welcome,
  type WelcomeDetails,
} from "./welcome.ts";
