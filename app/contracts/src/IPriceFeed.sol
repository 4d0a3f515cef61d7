// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {ModelOutput, Number} from "./IInference.sol";

/// @notice Whether the oldest or the newest candle comes first.
enum CandleOrder {
    Ascending,
    Descending
}

/// @notice A number of a candle.
enum CandleType {
    High,
    Low,
    Open,
    Close,
    Volume
}

/// @notice The newest `total_candles` candles of `candle_duration_in_mins` minutes each, as far as the feed has them to
/// their end. They begin at multiples of their duration since the epoch, as on exchanges: 30-minute candles at :00 and
/// :30.
/// @dev `base` and `quote` are compared byte by byte. At most 20160 minutes in all, and from 1 to 5 types.
struct HistoricalInputQuery {
    string base;
    string quote;
    uint32 total_candles;
    uint32 candle_duration_in_mins;
    CandleOrder order;
    CandleType[] candle_types;
}

/// @title Penstock's price-feed precompile
/// @notice It reads the one-minute candles that the feeder pushed to the contract `CandleFeed`, so that an answer is a
/// function of the chain's state alone. It refuses value, delegatecall and callcode.
interface IPriceFeed {
    /// @notice A model answered about prices. `inferenceID` is that of `IInference`: the same candles give the same id as
    /// a request with the numbers written out.
    event HistoricalInferenceEvent(string inferenceID, string modelID, string base, string quote);

    /// @notice The feed has no such pair.
    error UnknownPair();
    /// @notice The feed has no candle of the minute that begins at `time` (seconds since the epoch), which the query
    /// needs: the history does not go back that far, or has a gap there.
    error CandlesUnavailable(uint64 time);

    /// @notice The candles, one after the other, each with the numbers asked for in the order asked.
    /// @dev It may be called by STATICCALL, too.
    function queryHistoricalCandles(HistoricalInputQuery memory input) external returns (Number[] memory);

    /// @notice Asks a model about the candles. They are its input `input_name` (empty where it has one input), in the
    /// shape [total_candles, number of types] where the model takes that, with or without a batch dimension of 1 before
    /// it, and else as one row.
    function runInferenceOnPriceFeed(
        string memory model_id,
        string memory input_name,
        HistoricalInputQuery memory input
    ) external returns (ModelOutput memory);
}

/// @dev Where a Penstock chain with a price feed serves `IPriceFeed`.
IPriceFeed constant PRICE_FEED = IPriceFeed(0x00000000000000000000000000000000000000F5);
