/** Hawser: two endpoints, as in the network bench; requests by `request` and `handle`. */

import { Endpoint } from "../../mod.ts";
import { RECEIVER, SENDER } from "../net_case.ts";
import { receiveHawser, sendHawser } from "../net_hawser.ts";
import { type Adapter, netTask, oneWayResult, type PeerResult, type PeerTask } from "./case.ts";
import { askPromised, checkRequest } from "./requests.ts";

const TOPIC = "ask";

/** One way by `trySend` and `onMessage`; with the task's certificates under mutual TLS. */
export const hawser: Adapter = {
  async receive(task, onListening) {
    if (task.kind === "requests") return await answer(task, onListening);
    return oneWayResult(await receiveHawser(netTask(task), onListening));
  },
  async send(task, address) {
    if (task.kind === "requests") return await ask(task, address);
    return oneWayResult(await sendHawser(netTask(task), address));
  },
};

async function answer(task: PeerTask, onListening: (address: string) => void): Promise<PeerResult> {
  const endpoint = newEndpoint(task, RECEIVER, { listen: "tcp://127.0.0.1:0" });
  const failed = Promise.withResolvers<PeerResult>();
  endpoint.handle(TOPIC, ({ payload }) => {
    try {
      checkRequest(task, payload);
    } catch (error) {
      failed.reject(error);
    }
    return payload;
  });
  await endpoint.start();
  onListening(endpoint.addresses[0]!);
  return await failed.promise;
}

async function ask(task: PeerTask, address: string): Promise<PeerResult> {
  const endpoint = newEndpoint(task, SENDER, {});
  await endpoint.start();
  await endpoint.connect({ nodeId: RECEIVER, address });
  return await askPromised(
    task,
    (message) => endpoint.request(RECEIVER, message, { topic: TOPIC }),
  );
}

function newEndpoint(task: PeerTask, nodeId: string, listen: { listen?: string }): Endpoint {
  const compression = { enabled: false };
  if (task.tls === null) {
    return new Endpoint({ nodeId, ...listen, compression, security: "legacy" });
  }
  const tls = { ...task.tls, requireClientAuth: true, nodeIdVerification: "CommonName" as const };
  return new Endpoint({ nodeId, ...listen, compression, security: "strict", tls });
}
