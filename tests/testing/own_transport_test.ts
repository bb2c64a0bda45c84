/** The example of a transport, held to what every transport owes. */

import { pipeTransport } from "../../examples/own_transport.ts";
import { linkContract } from "../transport/link_contract.ts";

let names = 0;
linkContract("examples/own_transport.ts", () =>
  Promise.resolve({
    transport: pipeTransport(),
    listenAddress: `pipe://test${names++}:1`,
  }));
