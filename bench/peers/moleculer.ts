/** Moleculer: two brokers over its TCP transporter; events one way, calls for requests. */

import { type Adapter, messages, meter, type PeerResult, type PeerTask } from "./case.ts";
import { freePort } from "./install.ts";
import { load } from "./package/load.ts";
import { askPromised, checkRequest } from "./requests.ts";

const SERVICE = "bench";
const RECEIVER = "receiver";
/** Events that may wait to be written at the same time. */
const UNWRITTEN = 64;

interface Parameters {
  payload: Uint8Array;
}

interface Broker {
  createService(service: object): void;
  start(): Promise<void>;
  waitForServices(name: string): Promise<unknown>;
  emit(event: string, parameters: Parameters): Promise<unknown>;
  call(action: string, parameters: Parameters): Promise<Parameters>;
}

interface Package {
  ServiceBroker: new (options: object) => Broker;
}

/** One way no more than a few events are unwritten at a time: `emit` promises that one is. */
export const moleculer: Adapter = {
  async receive(task, onListening) {
    // The address of the receiver must be known before it starts.
    const address = `127.0.0.1:${await freePort()}/${RECEIVER}`;
    const broker = await newBroker(RECEIVER, address);
    const result = Promise.withResolvers<PeerResult>();
    broker.createService(service(task, result.resolve, result.reject));
    await broker.start();
    onListening(address);
    return await result.promise;
  },
  async send(task, address) {
    const broker = await newBroker("sender", address);
    await broker.start();
    await broker.waitForServices(SERVICE);
    if (task.kind === "one-way") return await push(task, broker);
    return await askPromised(
      task,
      async (payload) => (await broker.call(`${SERVICE}.ask`, { payload })).payload,
    );
  },
};

async function newBroker(nodeID: string, receiver: string): Promise<Broker> {
  const { ServiceBroker } = await load<Package>("moleculer");
  return new ServiceBroker({
    nodeID,
    logger: false,
    transporter: { type: "TCP", options: { udpDiscovery: false, urls: [receiver] } },
    // The default, JSON, has no bytes.
    serializer: "CBOR",
  });
}

function service(
  task: PeerTask,
  resolve: (result: PeerResult) => void,
  reject: (error: unknown) => void,
): object {
  const take = meter(task, resolve, reject);
  return {
    name: SERVICE,
    actions: {
      ask({ params }: { params: Parameters }): Parameters {
        try {
          checkRequest(task, params.payload);
        } catch (error) {
          reject(error);
        }
        return params;
      },
    },
    events: {
      "bench.push": ({ params }: { params: Parameters }) => take(params.payload),
    },
  };
}

async function push(task: PeerTask, broker: Broker): Promise<PeerResult> {
  const unwritten: Promise<unknown>[] = [];
  for (const payload of messages(task)) {
    unwritten.push(broker.emit("bench.push", { payload }));
    if (unwritten.length < UNWRITTEN) continue;
    await Promise.all(unwritten);
    unwritten.length = 0;
  }
  await Promise.all(unwritten);
  return {};
}
