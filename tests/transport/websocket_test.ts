import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { webSocketTransports } from "../../src/transport/websocket.ts";
import { linkContract } from "./link_contract.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const [ws, wss] = webSocketTransports(detectRuntime());

linkContract("WebSocket", () =>
  Promise.resolve({
    transport: ws!,
    listenAddress: "ws://127.0.0.1:0/hawser",
    dialerTls: undefined,
    listenerTls: undefined,
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  }));

linkContract("WebSocket with mutual TLS", async () => {
  const { ca, server, client } = await testNodes();
  return {
    transport: wss!,
    listenAddress: "wss://127.0.0.1:0/",
    dialerTls: dialerTls(ca, client),
    listenerTls: listenerTls(ca, server),
    dialerCertificate: certificateOf(client),
    listenerCertificate: certificateOf(server),
  };
});
