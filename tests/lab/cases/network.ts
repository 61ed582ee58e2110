/** Endpoints of the kinds that not every kernel has; Debian's has them all. */
import { endpointContract } from "../../contract/endpoint.ts";
import { linkSubject } from "../../support/endpoint-subjects.ts";
import { rootTest } from "../../support/skip.ts";

endpointContract(linkSubject("vlan", "tcfilter", rootTest));
endpointContract(linkSubject("vlan", "macvtap", rootTest));
endpointContract(linkSubject("ipvlan", "tcfilter", rootTest));
endpointContract(linkSubject("macvlan", "macvtap", rootTest));
