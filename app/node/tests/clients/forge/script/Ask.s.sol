// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {
    IInference,
    INFERENCE,
    JsonScalar,
    ModelOutput,
    MultiDimensionalNumberTensor,
    Number,
    StringTensor
} from "../src/IInference.sol";
import {Advisor} from "../src/examples/Advisor.sol";
import {Token} from "../src/test/Token.sol";

/// @notice Those of forge's cheat codes that are used here.
interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function mockCall(address where, bytes calldata data, bytes calldata answer) external;
}

/// @title Deploys two contracts, sends tokens, and asks a model
/// @notice forge runs a script in an EVM of its own, which has no models: it is told an answer of the right shape. The
/// transactions that it sends are answered by the chain.
contract Ask {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    /// @notice How forge knows a script.
    bool public constant IS_SCRIPT = true;

    function run() external returns (Token token, Advisor advisor) {
        vm.mockCall(address(INFERENCE), abi.encodePacked(IInference.runModelInference.selector), abi.encode(_anything()));

        vm.startBroadcast();
        token = new Token(1_000_000);
        require(token.transfer(address(0xc0ffee), 5), "not sent");
        advisor = new Advisor();
        Number[] memory values = new Number[](2);
        values[0] = Number(4, 0);
        values[1] = Number(5, 0);
        advisor.ask("penstock/linear", "x", values, new uint32[](0));
        vm.stopBroadcast();
    }

    function _anything() private pure returns (ModelOutput memory) {
        MultiDimensionalNumberTensor[] memory numbers = new MultiDimensionalNumberTensor[](1);
        numbers[0] = MultiDimensionalNumberTensor("y", new Number[](1), new uint32[](0));
        return ModelOutput(numbers, new StringTensor[](0), new JsonScalar[](0), true);
    }
}
