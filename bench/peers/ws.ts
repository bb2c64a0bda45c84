/** ws: a WebSocket server and a client; `bufferedAmount` says when to wait. */

import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { load } from "./package/load.ts";
import { checkRequest, OrderedRequests } from "./requests.ts";

/** More than this is not put into the socket's buffer. */
const BUFFERED_BYTES = 1_048_576;

interface Socket {
  readonly bufferedAmount: number;
  on(event: "open", listener: () => void): void;
  on(event: "message", listener: (data: Uint8Array) => void): void;
  on(event: "error", listener: (error: unknown) => void): void;
  on(event: "close", listener: (code: number) => void): void;
  send(data: Uint8Array, written?: () => void): void;
}

interface Server {
  address(): { port: number };
  on(event: "listening", listener: () => void): void;
  on(event: "connection", listener: (socket: Socket) => void): void;
  on(event: "error", listener: (error: unknown) => void): void;
}

interface Package {
  WebSocket: new (url: string, options: { perMessageDeflate: boolean }) => Socket;
  WebSocketServer: new (options: { host: string; port: number }) => Server;
}

/** One way by `send` and the message event; requests are echoed. */
export const ws: Adapter = {
  async receive(task, onListening) {
    const { WebSocketServer } = await load<Package>("ws");
    return await new Promise<PeerResult>((resolve, reject) => {
      const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
      server.on("error", reject);
      server.on("listening", () => onListening(`ws://127.0.0.1:${server.address().port}`));
      server.on("connection", (socket) => {
        socket.on("error", reject);
        socket.on(
          "message",
          task.kind === "one-way" ? meter(task, resolve, reject) : (message) => {
            try {
              checkRequest(task, message);
            } catch (error) {
              reject(error);
            }
            socket.send(message);
          },
        );
      });
    });
  },
  async send(task, address) {
    const socket = await open(address);
    if (task.kind === "requests") return await ask(task, socket);
    for (const message of messages(task)) {
      if (socket.bufferedAmount < BUFFERED_BYTES) socket.send(message);
      else await sendAndWait(socket, message);
    }
    return {};
  },
};

async function open(address: string): Promise<Socket> {
  const { WebSocket } = await load<Package>("ws");
  return await new Promise((resolve, reject) => {
    const socket = new WebSocket(address, { perMessageDeflate: false });
    socket.on("open", () => resolve(socket));
    socket.on("error", reject);
  });
}

async function sendAndWait(socket: Socket, message: Uint8Array): Promise<void> {
  await new Promise<void>((resolve) => socket.send(message, resolve));
  // Not every runtime calls back only when it is written.
  while (socket.bufferedAmount >= BUFFERED_BYTES) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function ask(task: PeerTask, socket: Socket): Promise<PeerResult> {
  const requests = new OrderedRequests(task);
  const fill = () => {
    for (let request = requests.next(); request !== undefined; request = requests.next()) {
      socket.send(request);
    }
  };
  socket.on("error", (error) => requests.fail(error));
  socket.on("close", (code) => requests.fail(new Error(`the socket was closed: ${code}`)));
  socket.on("message", (answer) => {
    requests.take(answer);
    fill();
  });
  fill();
  return requests.result;
}
