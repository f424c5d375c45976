"""The table of networks: one line each. A new network is a line here, its titles in aliases.py, its memo in memos.py.

The rules' sources are in the docstrings of their modules. `starts` are the beginnings of an address, used to recognise
it when it was given for another network; `form` names a spelling that several networks share, which no offline check
can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from swap.addresses import hex_accounts, names, own_checksums
from swap.addresses.bech32 import BECH32M
from swap.addresses.bech32_accounts import account as bech32_account
from swap.addresses.bech32_accounts import chain_prefixed, nervos
from swap.addresses.bitcoin import account, no_pay_to_script, same_as_bitcoin_script, tezos, tron, with_segwit, zcash
from swap.addresses.blake256 import blake256d
from swap.addresses.cardano import cardano
from swap.addresses.cash import bitcoin_cash, conflux, kaspa
from swap.addresses.evm import ethereum, rootstock, xdc
from swap.addresses.lightning import lightning
from swap.addresses.monero import monero
from swap.addresses.payable import Rule
from swap.addresses.ripple import ripple
from swap.addresses.solana import solana
from swap.addresses.ss58 import substrate
from swap.addresses.stellar import stellar
from swap.addresses.ton import ton


@dataclass(frozen=True, slots=True)
class Network:
    """code: internal and stable. name: what people call it, for sentences."""

    code: str
    name: str
    rule: Rule
    starts: tuple[str, ...] = ()
    form: str | None = None


def _evm(code: str, name: str) -> Network:
    return Network(code, name, ethereum, ("0x",), "0x + 40 digits")


def _cosmos(code: str, name: str, hrp: str) -> Network:
    return Network(code, name, bech32_account(hrp), (hrp + "1",))


def _one_byte(*versions: int) -> tuple[bytes, ...]:
    return tuple(bytes([version]) for version in versions)


# USDT and USDC on Tron, and the account of the hash of zeros.
_TRON_CONTRACTS = frozenset({"TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "TEkxiTehnzSmSe2XqrBj4w32RUN966rdz8"})

_NETWORKS: Iterable[Network] = (
    # Bitcoin and its relatives
    Network("BTC", "Bitcoin", with_segwit(account(*_one_byte(0x00, 0x05)), "bc", taproot=True), ("bc1", "1", "3")),
    Network("LN", "Lightning", lightning, ("lnbc",)),
    Network(
        "LTC",
        "Litecoin",
        with_segwit(
            account(*_one_byte(0x30, 0x32), elsewhere=same_as_bitcoin_script(b"\x32", "Litecoin")), "ltc", taproot=True
        ),
        ("ltc1", "L", "M"),
    ),
    Network("DOGE", "Dogecoin", account(*_one_byte(0x1E, 0x16)), ("D", "9", "A")),
    Network("DASH", "Dash", account(*_one_byte(0x4C, 0x10)), ("X", "7")),
    Network("BCH", "Bitcoin Cash", bitcoin_cash("bitcoincash", "Bitcoin Cash"), ("bitcoincash:", "q", "p")),
    Network("XEC", "eCash", bitcoin_cash("ecash", "eCash"), ("ecash:",)),
    Network("BSV", "Bitcoin SV", account(b"\x00", elsewhere=no_pay_to_script())),
    Network("BTG", "Bitcoin Gold", with_segwit(account(*_one_byte(0x26, 0x17)), "btg"), ("btg1", "G")),
    Network(
        "DGB",
        "DigiByte",
        with_segwit(account(*_one_byte(0x1E, 0x3F), elsewhere=same_as_bitcoin_script(b"\x3f", "DigiByte")), "dgb"),
        ("dgb1", "S", "D"),
    ),
    Network("VTC", "Vertcoin", with_segwit(account(*_one_byte(0x47, 0x05)), "vtc"), ("vtc1", "V")),
    Network("RVN", "Ravencoin", account(*_one_byte(0x3C, 0x7A)), ("R", "r")),
    Network("KMD", "Komodo", account(*_one_byte(0x3C, 0x55)), ("b", "R")),
    Network("QTUM", "Qtum", with_segwit(account(*_one_byte(0x3A, 0x32)), "qc"), ("qc1", "Q", "M")),
    Network("XVG", "Verge", account(*_one_byte(0x1E, 0x21)), ("E", "D")),
    Network("FIRO", "Firo", account(*_one_byte(0x52, 0x07)), ("a", "3", "4")),
    Network("PIVX", "PIVX", account(*_one_byte(0x1E, 0x0D)), ("6", "D")),
    Network("ZEN", "Horizen", account(b"\x20\x89", b"\x20\x96"), ("zn", "zs")),
    Network("DCR", "Decred", account(b"\x07\x3f", b"\x07\x1a", double_hash=blake256d), ("Ds", "Dc")),
    Network("ZEC", "Zcash", zcash, ("t1", "t3")),
    # Ethereum-type chains
    _evm("ERC20", "Ethereum"),
    _evm("BEP20", "BNB Smart Chain"),
    _evm("MATIC", "Polygon"),
    _evm("ARBITRUM", "Arbitrum"),
    _evm("OPTIMISM", "Optimism"),
    _evm("BASE", "Base"),
    _evm("AVAXC", "Avalanche C-Chain"),
    _evm("ETC", "Ethereum Classic"),
    _evm("FTM", "Fantom"),
    _evm("CELO", "Celo"),
    _evm("LYX", "LUKSO"),
    _evm("VET", "VeChain"),
    Network("RSK", "Rootstock", rootstock(30), (), "0x + 40 digits"),
    Network("XDC", "XDC Network", xdc, ("xdc",), "0x + 40 digits"),
    # Accounts with Base58Check
    Network("TRC20", "Tron", tron(_TRON_CONTRACTS), ("T",)),
    Network("XTZ", "Tezos", tezos, ("tz", "KT1")),
    Network("NEO3", "Neo N3", account(b"\x35"), ("N",)),
    Network("ONT", "Ontology", account(b"\x17"), ("A",)),
    # Cosmos family
    _cosmos("ATOM", "Cosmos Hub", "cosmos"),
    _cosmos("OSMO", "Osmosis", "osmo"),
    _cosmos("KAVA", "Kava", "kava"),
    _cosmos("RUNE", "THORChain", "thor"),
    # Sei's proposal 116 (SIP-3) makes it an Ethereum-type chain alone; until the upstream says more, the form that it had.
    Network("SEI", "Sei", bech32_account("sei", warnings=("form_ending",)), ("sei1",)),
    _cosmos("TIA", "Celestia", "celestia"),
    _cosmos("DYDX", "dYdX Chain", "dydx"),
    _cosmos("LUNA", "Terra", "terra"),
    _cosmos("SCRT", "Secret Network", "secret"),
    _cosmos("AXL", "Axelar", "axelar"),
    _cosmos("CRO", "Cronos POS Chain", "cro"),
    _cosmos("BAND", "Band Protocol", "band"),
    _cosmos("AKT", "Akash", "akash"),
    _cosmos("INJ", "Injective", "inj"),
    Network("BEP2", "BNB Beacon Chain", bech32_account("bnb", warnings=("network_shut_down",)), ("bnb1",)),
    # Other accounts in Bech32
    Network("EGLD", "MultiversX", bech32_account("erd", 32), ("erd1",)),
    Network("XCH", "Chia", bech32_account("xch", 32, BECH32M), ("xch1",)),
    Network("CKB", "Nervos", nervos, ("ckb1",)),
    Network("ROSE", "Oasis", bech32_account("oasis", 21), ("oasis1",)),
    Network("ZIL", "Zilliqa", bech32_account("zil"), ("zil1",)),
    Network("ONE", "Harmony", bech32_account("one"), ("one1",)),
    Network("IOTX", "IoTeX", bech32_account("io"), ("io1",)),
    Network("AVAXX", "Avalanche X-Chain", chain_prefixed("X", "avax"), ("X-avax1",)),
    # Substrate family
    Network("DOT", "Polkadot", substrate(0), ("1",)),
    Network("KSM", "Kusama", substrate(2), ("C", "D", "E", "F", "G", "H", "J")),
    Network("TAO", "Bittensor", substrate(42), ("5",), "SS58 42"),
    Network("ASTR", "Astar", substrate(5), ("W", "X", "Y", "Z", "a", "b")),
    # Ledgers with memos
    Network("XRP", "XRP Ledger", ripple, ("r", "X")),
    Network("XLM", "Stellar", stellar, ("G", "M")),
    Network("TON", "TON", ton, ("EQ", "UQ", "Ef", "Uf")),
    Network("EOS", "EOS", names.eosio, (), "EOSIO name"),
    Network("WAX", "WAX", names.eosio, (), "EOSIO name"),
    Network("HIVE", "Hive", names.hive, (), "Graphene name"),
    Network("STEEM", "Steem", names.hive, (), "Graphene name"),
    Network("HBAR", "Hedera", names.hedera, ("0.0.",)),
    Network("ALGO", "Algorand", own_checksums.algorand),
    Network("XEM", "NEM", own_checksums.nem, ("N",)),
    Network("STX", "Stacks", own_checksums.stacks, ("SP", "SM")),
    Network("ICP", "Internet Computer", hex_accounts.internet_computer),
    Network("CSPR", "Casper", hex_accounts.casper, ("01", "02")),
    Network("MINA", "Mina", own_checksums.mina, ("B62",)),
    # Forms of their own
    Network("SOL", "Solana", solana),
    Network("ADA", "Cardano", cardano, ("addr1", "Ae2", "Ddz")),
    Network("XMR", "Monero", monero, ("4", "8")),
    Network("NEAR", "NEAR", names.near, (), "NEAR name"),
    Network("APT", "Aptos", hex_accounts.move, (), "0x + 64 digits"),
    Network("SUI", "Sui", hex_accounts.move, (), "0x + 64 digits"),
    Network("FIL", "Filecoin", own_checksums.filecoin, ("f1", "f2", "f3", "f410f")),
    Network("KAS", "Kaspa", kaspa, ("kaspa:",)),
    Network("CFX", "Conflux", conflux, ("cfx:",)),
    Network("NANO", "Nano", own_checksums.nano, ("nano_", "xrb_")),
    Network("WAVES", "Waves", own_checksums.waves, ("3P",)),
    Network("ERG", "Ergo", own_checksums.ergo, ("9",)),
    Network("AE", "aeternity", own_checksums.aeternity, ("ak_",)),
    Network("SC", "Siacoin", hex_accounts.siacoin),
    Network("ICX", "ICON", hex_accounts.icon, ("hx", "cx")),
    Network("AR", "Arweave", hex_accounts.arweave),
)

NETWORKS = MappingProxyType({network.code: network for network in _NETWORKS})
