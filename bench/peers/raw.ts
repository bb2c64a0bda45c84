/** The raw socket, as in the network bench; requests are batched by hand, too. */

import net from "node:net";
import { readStamp, stamp } from "../net_case.ts";
import { receiveRaw, sendRaw } from "../net_raw.ts";
import { type Adapter, netTask, oneWayResult, type PeerResult, type PeerTask } from "./case.ts";
import { checkRequest, OrderedRequests } from "./requests.ts";

const LENGTH_BYTES = 4;

/** `node:net` with length-prefixed frames. */
export const raw: Adapter = {
  async receive(task, onListening) {
    if (task.kind === "requests") return await answer(task, onListening);
    return oneWayResult(await receiveRaw(netTask(task), onListening));
  },
  async send(task, address) {
    if (task.kind === "requests") return await ask(task, address);
    return oneWayResult(await sendRaw(netTask(task), address));
  },
};

function answer(task: PeerTask, onListening: (address: string) => void): Promise<PeerResult> {
  return new Promise((_, reject) => {
    const server = net.createServer((socket) => {
      socket.setNoDelay(true);
      const batch = new Batch(socket);
      socket.on(
        "data",
        frames(
          (message) => {
            checkRequest(task, message);
            batch.add(message);
          },
          () => batch.write(),
          reject,
        ),
      );
      socket.on("error", () => {});
    });
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      onListening(`127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    });
  });
}

async function ask(task: PeerTask, address: string): Promise<PeerResult> {
  const socket = net.connect({ host: "127.0.0.1", port: Number(address.split(":")[1]) });
  const requests = new OrderedRequests(task);
  socket.on("error", (error) => requests.fail(error));
  const batch = new Batch(socket);
  const fill = () => {
    for (let request = requests.next(); request !== undefined; request = requests.next()) {
      batch.add(request);
    }
    batch.write();
  };
  socket.on("data", frames((message) => requests.take(message), fill, (e) => requests.fail(e)));
  socket.once("connect", () => {
    socket.setNoDelay(true);
    fill();
  });
  try {
    return await requests.result;
  } finally {
    socket.destroy();
  }
}

/** Frames that are written together. */
class Batch {
  readonly #socket: net.Socket;
  #frames: Uint8Array[] = [];
  #bytes = 0;

  constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  add(message: Uint8Array): void {
    this.#frames.push(message);
    this.#bytes += LENGTH_BYTES + message.length;
  }

  write(): void {
    if (this.#frames.length === 0) return;
    const bytes = new Uint8Array(this.#bytes);
    let at = 0;
    for (const frame of this.#frames) {
      stamp(bytes, at, frame.length);
      bytes.set(frame, at + LENGTH_BYTES);
      at += LENGTH_BYTES + frame.length;
    }
    this.#frames = [];
    this.#bytes = 0;
    this.#socket.write(bytes);
  }
}

/** Cuts chunks into frames; `onChunk` follows the last frame of each. */
function frames(
  onFrame: (message: Uint8Array) => void,
  onChunk: () => void,
  onError: (error: unknown) => void,
): (chunk: Uint8Array) => void {
  let rest: Uint8Array = new Uint8Array(0);
  return (chunk) => {
    const bytes = rest.length === 0 ? chunk : concat(rest, chunk);
    let at = 0;
    try {
      while (at + LENGTH_BYTES <= bytes.length) {
        const end = at + LENGTH_BYTES + readStamp(bytes, at);
        if (end > bytes.length) break;
        onFrame(bytes.subarray(at + LENGTH_BYTES, end));
        at = end;
      }
      rest = bytes.slice(at);
      onChunk();
    } catch (error) {
      onError(error);
    }
  };
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
