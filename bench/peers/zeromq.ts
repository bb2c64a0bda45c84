/** ZeroMQ: Push and Pull one way, Request and Reply or Dealer and Router for requests. */

import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { load } from "./package/load.ts";
import { checkRequest, OrderedRequests } from "./requests.ts";

interface Socket extends AsyncIterable<Uint8Array[]> {
  readonly lastEndpoint: string | null;
  bind(address: string): Promise<void>;
  connect(address: string): void;
  send(message: Uint8Array | Uint8Array[]): Promise<void>;
}

interface Package {
  Push: new () => Socket;
  Pull: new () => Socket;
  Request: new () => Socket;
  Reply: new () => Socket;
  Dealer: new () => Socket;
  Router: new () => Socket;
}

/** One way `send` waits where the high water mark is reached; a second `send` must wait for it. */
export const zeromq: Adapter = {
  async receive(task, onListening) {
    const { Pull, Reply, Router } = await load<Package>("zeromq");
    const socket = task.kind === "one-way"
      ? new Pull()
      : task.inFlight === 1
      ? new Reply()
      : new Router();
    await socket.bind("tcp://127.0.0.1:*");
    onListening(socket.lastEndpoint!);
    return task.kind === "one-way" ? await measure(task, socket) : await answer(task, socket);
  },
  async send(task, address) {
    const { Push, Request, Dealer } = await load<Package>("zeromq");
    const socket = task.kind === "one-way"
      ? new Push()
      : task.inFlight === 1
      ? new Request()
      : new Dealer();
    socket.connect(address);
    if (task.kind === "requests") return await ask(task, socket);
    for (const message of messages(task)) await socket.send(message);
    return {};
  },
};

async function measure(task: PeerTask, socket: Socket): Promise<PeerResult> {
  const result = Promise.withResolvers<PeerResult>();
  let over = false;
  const take = meter(task, (measured) => {
    over = true;
    result.resolve(measured);
  }, (error) => {
    over = true;
    result.reject(error);
  });
  for await (const [message] of socket) {
    take(message!);
    if (over) break;
  }
  return await result.promise;
}

async function answer(task: PeerTask, socket: Socket): Promise<PeerResult> {
  for await (const parts of socket) {
    // A router puts the name of who asked before the message.
    checkRequest(task, parts.at(-1)!);
    await socket.send(parts);
  }
  return {};
}

async function ask(task: PeerTask, socket: Socket): Promise<PeerResult> {
  const requests = new OrderedRequests(task);
  const read = async () => {
    await fill(socket, requests);
    for await (const [message] of socket) {
      requests.take(message!);
      await fill(socket, requests);
    }
  };
  read().catch((error) => requests.fail(error));
  return await requests.result;
}

async function fill(socket: Socket, requests: OrderedRequests): Promise<void> {
  for (let request = requests.next(); request !== undefined; request = requests.next()) {
    await socket.send(request);
  }
}
