/**
 * WebSockets that `Deno.serve` has accepted.
 *
 * @module
 */

import type { Link, LinkInfo } from "../transport/transport.ts";
import type { NativeSocket } from "./native_websocket.ts";
import { NativeWebSocketLink } from "./native_websocket_link.ts";

/** Codes of Close frames (RFC 6455, section 7.4.1). */
const NORMAL = 1000;
const GOING_AWAY = 1001;
/** Of the codes below 3000, Deno lets a program send 1000 alone: 1001 goes as 4001. */
const PRIVATE = 3000;
/** No Close frame came (RFC 6455, section 7.1.5). */
const ABNORMAL = 1006;
/** How long the other side may take to answer our Close frame: Deno (2.9.6) waits for ever. */
const CLOSE_MS = 2_000;

/** What becomes of an upgrade. */
export interface UpgradeEvents {
  /** The WebSocket is open. */
  onLink(link: Link): void;
  /** It is gone, exactly once, also where it was never open. */
  onGone(): void;
}

/**
 * Answers a request with an upgrade. Where the other side goes away before the answer, Deno (2.9.6)
 * never says so: what is not open after `timeoutMs` counts as gone.
 *
 * @throws {TypeError} The request asks for none.
 */
export function upgradeDeno(
  request: Request,
  protocol: string,
  info: LinkInfo,
  timeoutMs: number,
  events: UpgradeEvents,
): Response {
  const { socket, response } = Deno.upgradeWebSocket(request, { protocol });
  socket.binaryType = "arraybuffer";
  let link: NativeWebSocketLink | undefined;
  let gone = false;
  const onGone = () => {
    if (gone) return;
    gone = true;
    clearTimeout(timer);
    clearTimeout(closing);
    events.onGone();
  };
  let closing: ReturnType<typeof setTimeout> | undefined;
  // Whoever does not answer must not keep a place among the connections.
  const onClosing = () => {
    if (gone || closing !== undefined) return;
    closing = setTimeout(() => {
      link?.onSocketClose(ABNORMAL);
      onGone();
    }, CLOSE_MS);
    Deno.unrefTimer(Number(closing));
  };
  const timer = setTimeout(onGone, timeoutMs);
  socket.onopen = () => {
    if (gone) return socket.close();
    clearTimeout(timer);
    link = new NativeWebSocketLink(denoSocket(socket, onClosing), info);
    events.onLink(link);
  };
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) link?.onMessage(new Uint8Array(data));
    else link?.onText();
  };
  // An error is followed by the close.
  socket.onerror = () => {};
  socket.onclose = ({ code }) => {
    link?.onSocketClose(code);
    onGone();
  };
  return response;
}

/** Deno can't stop reading, says nothing when it has sent, and ends no connection by force. */
function denoSocket(socket: WebSocket, onClosing: () => void): NativeSocket {
  const close = (code: number) => {
    onClosing();
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.close(code === NORMAL ? code : code + PRIVATE);
  };
  return {
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    tellsDrain: false,
    send: (message) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(message as Uint8Array<ArrayBuffer>);
      return true;
    },
    close,
    terminate: () => close(GOING_AWAY),
    pause() {},
    resume() {},
  };
}
