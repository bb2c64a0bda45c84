/** The recorder of links, under the name by which the tests know it. */

export {
  countedBytes,
  CountedBytesCheck,
  LinkRecorder,
  turn,
  until,
} from "../../src/testing/link_recorder.ts";
