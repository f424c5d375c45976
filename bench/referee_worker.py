"""The referees' side: what other libraries say about addresses. Runs in the referees' own interpreter.

Imports nothing of the service and needs nothing but the libraries of referees.in, each of which may be missing.
Reads one JSON object from standard input, {"rows": [[network, address], ...], "seconds": 0}, and answers
{library: {"version", "error", "networks", "answers": [true | false | "crash text" | null, ...], "per_second"}}:
null where the library does not know the network, per_second the rate over the rows it knows, measured for about
`seconds` of processor time (0: not measured).

An adapter calls what the library's own documentation calls, and adds only what the library cannot know: which
version bytes or prefix the network has, which of several decoders the beginning asks for, a BCH prefix left out.
A refusal is False, a ValueError or an exception class of the library itself; anything else raised is a crash.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Adapter = Callable[[str], Any]
Adapters = dict[str, Adapter]


def bip_utils() -> Adapters:
    from bip_utils import (
        AdaByronAddrDecoder,
        AdaShelleyAddrDecoder,
        AlgoAddrDecoder,
        AptosAddrDecoder,
        AtomAddrDecoder,
        AvaxXChainAddrDecoder,
        BchP2PKHAddrDecoder,
        BchP2SHAddrDecoder,
        EgldAddrDecoder,
        ErgoP2PKHAddrDecoder,
        EthAddrDecoder,
        FilSecp256k1AddrDecoder,
        IcxAddrDecoder,
        InjAddrDecoder,
        NanoAddrDecoder,
        NearAddrDecoder,
        NeoLegacyAddrDecoder,
        NeoN3AddrDecoder,
        OneAddrDecoder,
        P2PKHAddrDecoder,
        P2TRAddrDecoder,
        P2WPKHAddrDecoder,
        SolAddrDecoder,
        SubstrateSr25519AddrDecoder,
        SuiAddrDecoder,
        TrxAddrDecoder,
        XlmAddrDecoder,
        XmrAddrDecoder,
        XmrIntegratedAddrDecoder,
        XrpAddrDecoder,
        XtzAddrDecoder,
        XtzAddrPrefixes,
        ZilAddrDecoder,
    )  # fmt: skip
    from bip_utils.bech32 import SegwitBech32Decoder

    def first_of(*attempts: Adapter) -> Adapter:
        def adapter(address: str) -> None:
            for attempt in attempts[:-1]:
                try:
                    attempt(address)
                    return
                except Exception as error:
                    if not _is_refusal(error, "bip_utils"):
                        raise
            attempts[-1](address)

        return adapter

    def base58(*versions: str) -> Adapter:
        def one(net_ver: bytes) -> Adapter:
            return lambda address: P2PKHAddrDecoder.DecodeAddr(address, net_ver=net_ver)

        return first_of(*(one(bytes.fromhex(text)) for text in versions))

    def segwit(legacy: Adapter, hrp: str, taproot: bool = False) -> Adapter:
        def adapter(address: str) -> None:
            if not address.lower().startswith(hrp + "1"):
                legacy(address)
            elif taproot and address[len(hrp) + 1 : len(hrp) + 2].lower() == "p":
                P2TRAddrDecoder.DecodeAddr(address, hrp=hrp)
            elif len(address) == len(hrp) + 40:
                P2WPKHAddrDecoder.DecodeAddr(address, hrp=hrp)
            elif SegwitBech32Decoder.Decode(hrp, address)[0]:  # P2WSH has no class of its own
                raise ValueError("not version 0")

        return adapter

    def cash(hrp: str) -> Adapter:
        def adapter(address: str) -> None:
            full = address if ":" in address else f"{hrp}:{address}"
            try:
                BchP2PKHAddrDecoder.DecodeAddr(full, hrp=hrp, net_ver=b"\x00")
            except ValueError:
                BchP2SHAddrDecoder.DecodeAddr(full, hrp=hrp, net_ver=b"\x08")

        return adapter

    def ethereum(address: str) -> None:
        digits = address[2:]
        EthAddrDecoder.DecodeAddr(address, skip_chksum_enc=digits in (digits.lower(), digits.upper()))

    def atom(hrp: str) -> Adapter:
        return lambda address: AtomAddrDecoder.DecodeAddr(address, hrp=hrp)

    def substrate(prefix: int) -> Adapter:
        return lambda address: SubstrateSr25519AddrDecoder.DecodeAddr(address, ss58_format=prefix)

    def tezos(prefix: XtzAddrPrefixes) -> Adapter:
        return lambda address: XtzAddrDecoder.DecodeAddr(address, prefix=prefix)

    def monero(address: str) -> None:
        if len(address) > 95:
            XmrIntegratedAddrDecoder.DecodeAddr(address, net_ver=b"\x13", payment_id=_payment_id(address))
        else:
            XmrAddrDecoder.DecodeAddr(address, net_ver=b"*" if address.startswith("8") else b"\x12")

    def _payment_id(address: str) -> bytes:
        from bip_utils import Base58XmrDecoder

        return bytes(Base58XmrDecoder.Decode(address)[65:73])

    adapters: Adapters = {
        "BTC": segwit(base58("00", "05"), "bc", taproot=True),
        "LTC": segwit(base58("30", "32"), "ltc", taproot=True),
        "DOGE": base58("1e", "16"),
        "DASH": base58("4c", "10"),
        "BCH": cash("bitcoincash"),
        "XEC": cash("ecash"),
        "BSV": base58("00"),
        "BTG": segwit(base58("26", "17"), "btg"),
        "DGB": segwit(base58("1e", "3f"), "dgb"),
        "VTC": segwit(base58("47", "05"), "vtc"),
        "RVN": base58("3c", "7a"),
        "KMD": base58("3c", "55"),
        "QTUM": segwit(base58("3a", "32"), "qc"),
        "XVG": base58("1e", "21"),
        "FIRO": base58("52", "07"),
        "PIVX": base58("1e", "0d"),
        "ZEN": base58("2089", "2096"),
        "ZEC": base58("1cb8", "1cbd"),
        "TRC20": TrxAddrDecoder.DecodeAddr,
        "XTZ": first_of(*(tezos(prefix) for prefix in XtzAddrPrefixes)),
        "NEO3": lambda address: NeoN3AddrDecoder.DecodeAddr(address, ver=b"\x35"),
        "ONT": lambda address: NeoLegacyAddrDecoder.DecodeAddr(address, ver=b"\x17"),
        "INJ": InjAddrDecoder.DecodeAddr,
        "EGLD": EgldAddrDecoder.DecodeAddr,
        "ZIL": ZilAddrDecoder.DecodeAddr,
        "ONE": OneAddrDecoder.DecodeAddr,
        "AVAXX": AvaxXChainAddrDecoder.DecodeAddr,
        "DOT": substrate(0),
        "KSM": substrate(2),
        "TAO": substrate(42),
        "ASTR": substrate(5),
        "XRP": XrpAddrDecoder.DecodeAddr,
        "XLM": XlmAddrDecoder.DecodeAddr,
        "ALGO": AlgoAddrDecoder.DecodeAddr,
        "SOL": SolAddrDecoder.DecodeAddr,
        "ADA": first_of(AdaShelleyAddrDecoder.DecodeAddr, AdaByronAddrDecoder.DecodeAddr),
        "XMR": monero,
        "NEAR": NearAddrDecoder.DecodeAddr,
        "APT": AptosAddrDecoder.DecodeAddr,
        "SUI": SuiAddrDecoder.DecodeAddr,
        "FIL": FilSecp256k1AddrDecoder.DecodeAddr,
        "NANO": NanoAddrDecoder.DecodeAddr,
        "ERG": ErgoP2PKHAddrDecoder.DecodeAddr,
        "ICX": IcxAddrDecoder.DecodeAddr,
    }
    for code in (
        "ERC20",
        "BEP20",
        "MATIC",
        "ARBITRUM",
        "OPTIMISM",
        "BASE",
        "AVAXC",
        "ETC",
        "FTM",
        "CELO",
        "VET",
        "RSK",
    ):
        adapters[code] = ethereum
    for code, hrp in {
        "ATOM": "cosmos", "OSMO": "osmo", "KAVA": "kava", "RUNE": "thor", "SEI": "sei", "TIA": "celestia", "DYDX": "dydx",
        "LUNA": "terra", "SCRT": "secret", "AXL": "axelar", "CRO": "cro", "BAND": "band", "AKT": "akash", "BEP2": "bnb",
    }.items():  # fmt: skip
        adapters[code] = atom(hrp)
    return adapters


def stellar_sdk() -> Adapters:
    from stellar_sdk import StrKey

    return {"XLM": lambda a: StrKey.is_valid_ed25519_public_key(a) or StrKey.is_valid_med25519_public_key(a)}


def xrpl() -> Adapters:
    from xrpl.core.addresscodec import is_valid_classic_address, is_valid_xaddress, xaddress_to_classic_address

    def adapter(address: str) -> bool:
        if is_valid_classic_address(address):
            return True
        return is_valid_xaddress(address) and not xaddress_to_classic_address(address)[2]  # the third says "test"

    return {"XRP": adapter}


def solders() -> Adapters:
    from solders.pubkey import Pubkey

    return {"SOL": Pubkey.from_string}


def pytoniq_core() -> Adapters:
    from pytoniq_core import Address

    return {"TON": lambda address: not Address(address).is_test_only}


def algosdk() -> Adapters:
    from algosdk.encoding import is_valid_address

    return {"ALGO": is_valid_address}


def btclib() -> Adapters:
    from btclib.b32 import witness_from_address
    from btclib.b58 import h160_from_address

    def adapter(address: str) -> bool:
        read = witness_from_address if address.lower().startswith("bc1") else h160_from_address
        return bool(read(address)[2] == "mainnet")

    return {"BTC": adapter}


def bolt11() -> Adapters:
    import bolt11 as library

    return {"LN": lambda invoice: library.decode(invoice).currency == "bc"}


# Import name of the module -> (name in the package registry, how to get its adapters).
LIBRARIES: dict[str, tuple[str, Callable[[], Adapters]]] = {
    "bip_utils": ("bip-utils", bip_utils),
    "stellar_sdk": ("stellar-sdk", stellar_sdk),
    "xrpl": ("xrpl-py", xrpl),
    "solders": ("solders", solders),
    "pytoniq_core": ("pytoniq-core", pytoniq_core),
    "algosdk": ("py-algorand-sdk", algosdk),
    "btclib": ("btclib", btclib),
    "bolt11": ("bolt11", bolt11),
}


def _is_refusal(error: Exception, module: str) -> bool:
    return isinstance(error, ValueError) or type(error).__module__.split(".")[0] == module


def _ask(adapter: Adapter, address: str, module: str) -> bool | str:
    try:
        return adapter(address) is not False
    except Exception as error:
        return False if _is_refusal(error, module) else type(error).__name__


def _rate(calls: list[tuple[Adapter, str]], module: str, seconds: float) -> float:
    for adapter, address in calls:  # warm
        _ask(adapter, address, module)
    done, begun = 0, time.process_time()
    while time.process_time() - begun < seconds:
        for adapter, address in calls:
            _ask(adapter, address, module)
        done += len(calls)
    return done / (time.process_time() - begun)


def judge(rows: list[list[str]], seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for module, (package, adapters_of) in LIBRARIES.items():
        try:
            adapters = adapters_of()
        except Exception as error:  # any: what a library does at import is its own affair
            result[package] = {"error": f"{type(error).__name__}: {error}"}
            continue
        calls = [(adapters[code], address) for code, address in rows if code in adapters]
        result[package] = {
            "error": None,
            "version": version(package),
            "networks": sorted(adapters),
            "answers": [_ask(adapters[code], address, module) if code in adapters else None for code, address in rows],
            "per_second": _rate(calls, module, seconds) if seconds and calls else None,
        }
    return result


if __name__ == "__main__":
    question = json.load(sys.stdin)
    json.dump(judge(question["rows"], question["seconds"]), sys.stdout)
