"""What to type so that a firewall lets others in: text, and nothing is done."""

from __future__ import annotations

from collections.abc import Iterable


def opening(ports: str, to: str) -> tuple[str, ...]:
    """A line for each firewall that opens TCP ``ports``, such as ``8471-8599``, to the machine ``to``."""
    family = "ipv6" if ":" in to else "ipv4"
    source = "ip6" if ":" in to else "ip"
    return (
        f"ufw: sudo ufw allow proto tcp from {to} to any port {ports.replace('-', ':')}",
        f"firewalld: sudo firewall-cmd --permanent --add-rich-rule='rule family={family} "
        f"source address={to} port port={ports} protocol=tcp accept' && sudo firewall-cmd --reload",
        # The names of table and chain are those of Debian's /etc/nftables.conf.
        f"nft: sudo nft insert rule inet filter input {source} saddr {to} tcp dport {ports} accept",
        "Windows: New-NetFirewallRule -DisplayName Reelfarm -Direction Inbound -Action Allow -Protocol TCP "
        f"-RemoteAddress {to} -LocalPort {ports}",
    )


def listed(ports: Iterable[int]) -> str:
    """8471, 8473, 8474, 8475 -> ``8471, 8473-8475``."""
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][-1] + 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    return ", ".join("-".join(map(str, run)) for run in runs)
