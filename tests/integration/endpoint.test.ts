import { endpointContract } from "../contract/endpoint.ts";
import { linkSubject, tapSubject } from "../support/endpoint-subjects.ts";
import { testIf } from "../support/skip.ts";
import { tapMissing } from "../support/tap.ts";

const missing = tapMissing();
const tapTest = testIf(missing === undefined, missing ?? "");

// The other kinds need a kernel that has them: tests/lab/cases/network.ts.
endpointContract(linkSubject("veth", "tcfilter", tapTest));
endpointContract(linkSubject("veth", "macvtap", tapTest));
endpointContract(linkSubject("veth", "l3forwarding", tapTest));
endpointContract(linkSubject("macvlan", "tcfilter", tapTest));
endpointContract(tapSubject(tapTest));
