// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {Decimals} from "../Decimals.sol";
import {INFERENCE} from "../IInference.sol";
import {Requests} from "../Requests.sol";

/// @title A task that does what a test wants of it
contract Ticker {
    /// @notice What `run` does.
    enum Mode {
        Count,
        Revert,
        UseAllGas,
        ReturnMuch,
        Ask
    }

    /// @notice How often `run` came to its end.
    uint256 public runs;
    /// @notice The time of the last run.
    uint256 public lastTime;
    Mode private mode;

    error Refused();

    function setMode(Mode next) external {
        mode = next;
    }

    function run() external {
        if (mode == Mode.Revert) revert Refused();
        if (mode == Mode.UseAllGas) while (true) {}
        if (mode == Mode.ReturnMuch) {
            assembly {
                revert(0, 500000)
            }
        }
        if (mode == Mode.Ask) {
            INFERENCE.runModelInference(
                Requests.pair("penstock/linear", "x", Decimals.whole(int128(int256(runs))), Decimals.whole(7))
            );
        }
        runs++;
        lastTime = block.timestamp;
    }
}
