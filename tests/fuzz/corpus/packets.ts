/** Packets of datagrams. */

import { hexes } from "./hex.ts";

const TAG = "000102030405060708090a0b0c0d0e0f";
const NUMBER = "0000000000000001";
const HELLO = '{"type":"hello","protocol_version":3,"node_id":"node1","capabilities":[]}';
const HELLO_HEX = Array.from(HELLO, (char) => char.charCodeAt(0).toString(16)).join("");
const SIZE = HELLO.length.toString(16).padStart(4, "0");

/** One of each kind, and some that are wrong. */
export const PACKETS: Uint8Array[] = [
  ...hexes(`da10 ${TAG} 00 ${"00".repeat(1181)}`),
  ...hexes(`da10 ${TAG} 03 c0ffee 00 ${SIZE} ${HELLO_HEX} ${"00".repeat(1100)}`),
  ...hexes(`da10 ${TAG} 03 c0ffee 20 ${"11".repeat(32)} ffff ${"00".repeat(1181)}`),
  ...hexes(
    `da11 ${TAG} 03 c0ffee`,
    `da11 ${TAG} 00`,
    `da12 ${TAG} ${TAG} 7b7d`,
    `da13 ${TAG} 7b7d`,
  ),
  ...hexes(`da14 ${TAG} ${NUMBER} 05 06676f73736970 61686f79`, `da14 ${TAG} ${NUMBER} 02`),
  ...hexes(
    `da14 ${TAG} ${NUMBER} 04 00`,
    `da14 ${TAG} ${NUMBER} 03`,
    `da14 ${TAG} ffffffffffffffff 00`,
  ),
  ...hexes(`da15 ${TAG} ${NUMBER} 01 ${NUMBER} 000003e8 3f`, `da15 ${TAG} ${NUMBER} 05 ${NUMBER}`),
  ...hexes(`da16 ${TAG} ${NUMBER} ${NUMBER} 617965`, `da17 ${TAG} ${NUMBER} ${NUMBER} 7b7d`),
  ...hexes(`da18 ${TAG} ${NUMBER} ${NUMBER}`, `da19 ${TAG} ${NUMBER} 1122334455667788`),
  ...hexes(
    `da1a ${TAG} ${NUMBER} 1122334455667788`,
    `da1b ${TAG} ${NUMBER} 0000`,
    "",
    "da",
    "da1c",
  ),
];

/** An envelope of node1 for node2, with any signature. */
const signed = (number: string, body: string) =>
  `01 05 6e6f646531 05 6e6f646532 ${number} 000001a002b7e000 ` +
  `${(body.length / 2).toString(16).padStart(8, "0")} ${body} ${"00".repeat(64)}`;
const ZERO = "0".repeat(16);
const OFFER = `01${"42".repeat(32)}`;
const SIGNED_HELLO = HELLO_HEX.replace("3a5b5d", "3a5b227369676e6564225d");
const WELCOME = '{"type":"welcome","protocol_version":3,"node_id":"node1","capabilities":[]}';
const WELCOME_HEX = Array.from(WELCOME, (char) => char.charCodeAt(0).toString(16)).join("");

const lengthOf = (content: string) =>
  (content.replaceAll(" ", "").length / 2).toString(16).padStart(4, "0");
const helloOf = (body: string) => {
  const content = signed(ZERO, body);
  return `da10 ${TAG} 03 c0ffee 00 ${lengthOf(content)} ${content} ${"00".repeat(1100)}`;
};

/** The same between nodes with keys: envelopes, and what stands for the tag of the encryption. */
export const SEALED_PACKETS: Uint8Array[] = hexes(
  helloOf(OFFER + SIGNED_HELLO),
  helloOf(`01${"00".repeat(32)}${SIGNED_HELLO}`),
  helloOf(SIGNED_HELLO),
  helloOf("01"),
  `da12 ${TAG} ${signed(ZERO, TAG + OFFER + WELCOME_HEX)}`,
  `da12 ${TAG} ${signed(ZERO, TAG + WELCOME_HEX)}`,
  `da14 ${TAG} ${NUMBER} ${signed(NUMBER, "0506676f7373697061686f79")} ${TAG}`,
  `da15 ${TAG} ${NUMBER} ${signed(NUMBER, `01${NUMBER}000003e83f`)} ${TAG}`,
  `da19 ${TAG} ${NUMBER} ${signed(NUMBER, "1122334455667788")} ${TAG}`,
  `da1b ${TAG} ${NUMBER} ${signed(NUMBER, "0004")} ${TAG}`,
);
