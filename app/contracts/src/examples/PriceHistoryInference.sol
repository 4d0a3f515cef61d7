// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {ModelOutput} from "../IInference.sol";
import {HistoricalInputQuery, IPriceFeed, PRICE_FEED} from "../IPriceFeed.sol";

/// @title Asks one model about the newest prices whenever somebody, or the scheduler, calls `run`
/// @notice It has the functions of the workflow contracts that OpenGradient's SDK deploys.
contract PriceHistoryInference {
    /// @notice A model answered.
    event InferenceResultEmitted(address indexed caller, ModelOutput result);

    /// @notice More results are asked for than none.
    error NoResultsAskedFor();
    /// @notice `run` was not called yet.
    error NoResult();

    /// @notice The precompile that has the prices.
    IPriceFeed public immutable historicalContract = PRICE_FEED;
    /// @notice The model.
    string public modelId;
    /// @notice The model's input that gets the prices.
    string public inputName;
    /// @notice The prices.
    HistoricalInputQuery public inputQuery;

    ModelOutput[] private results;

    constructor(string memory _modelId, string memory _inputName, HistoricalInputQuery memory _query) {
        modelId = _modelId;
        inputName = _inputName;
        inputQuery = _query;
    }

    /// @notice Asks and keeps the answer.
    function run() external {
        ModelOutput memory result = historicalContract.runInferenceOnPriceFeed(modelId, inputName, inputQuery);
        results.push(result);
        emit InferenceResultEmitted(msg.sender, result);
    }

    /// @notice The last answer.
    function getInferenceResult() external view returns (ModelOutput memory) {
        if (results.length == 0) revert NoResult();
        return results[results.length - 1];
    }

    /// @notice The last `num` answers, or all if there are fewer, the newest first.
    function getLastInferenceResults(uint256 num) external view returns (ModelOutput[] memory last) {
        if (num == 0) revert NoResultsAskedFor();
        uint256 count = num < results.length ? num : results.length;
        last = new ModelOutput[](count);
        for (uint256 i = 0; i < count; i++) {
            last[i] = results[results.length - 1 - i];
        }
    }
}
