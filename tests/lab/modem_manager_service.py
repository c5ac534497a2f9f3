"""A stand-in for ModemManager's D-Bus service, made of python-dbusmock; run by the system's own Python.

Reads one JSON document from standard input: ``{"modems": [{"state": 11, "sim": …, "idle_sims": […],
"bearers": [{"interface": …, "connected": …, "attempts": …}]}]}``, says ``ready`` and serves until it is
ended. Names, paths and types are those of the ModemManager 1.20 D-Bus reference.
"""

import json
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from dbusmock.mockobject import DBusMockObject
from gi.repository import GLib

NAME = "org.freedesktop.ModemManager1"
ROOT = "/org/freedesktop/ModemManager1"


def paths(kind, numbers):
    return dbus.Array([dbus.ObjectPath(f"{ROOT}/{kind}/{number}") for number in numbers], signature="o")


def modem(state, sims, in_use, bearers):
    """Every property that mmcli reads without asking whether it is there, and those the probe needs."""
    empty = dbus.Array([], signature="u")
    return {
        "Sim": dbus.ObjectPath(f"{ROOT}/SIM/{in_use}" if in_use is not None else "/"),
        "SimSlots": paths("SIM", sims),
        "PrimarySimSlot": dbus.UInt32(1),
        "Bearers": paths("Bearer", bearers),
        "State": dbus.Int32(state),
        "StateFailedReason": dbus.UInt32(0),
        "SignalQuality": dbus.Struct((dbus.UInt32(67), True), signature="ub"),
        "SupportedModes": dbus.Array([dbus.Struct((8, 0), signature="uu")], signature="(uu)"),
        "CurrentModes": dbus.Struct((8, 0), signature="uu"),
        "SupportedCapabilities": empty,
        "SupportedBands": empty,
        "CurrentBands": empty,
        "UnlockRetries": dbus.Dictionary({}, signature="uu"),
        "Ports": dbus.Array([dbus.Struct(("wwan0", 2), signature="su")], signature="(su)"),
        "OwnNumbers": dbus.Array([], signature="s"),
        "Drivers": dbus.Array(["qmi_wwan"], signature="s"),
        **{
            name: dbus.UInt32(0)
            for name in (
                *("CurrentCapabilities", "AccessTechnologies", "UnlockRequired", "PowerState"),
                *("SupportedIpFamilies", "MaxBearers", "MaxActiveBearers", "MaxActiveMultiplexedBearers"),
            )
        },
        **dict.fromkeys(
            (
                *("Manufacturer", "Model", "Revision", "CarrierConfiguration", "EquipmentIdentifier"),
                *("CarrierConfigurationRevision", "HardwareRevision", "DeviceIdentifier", "Device"),
                *("Physdev", "Plugin", "PrimaryPort"),
            ),
            "lab",
        ),
    }


def main():
    told = json.load(sys.stdin)
    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    name = dbus.service.BusName(NAME, dbus.SystemBus(), do_not_queue=True)
    manager = DBusMockObject(name, ROOT, NAME, {"Version": "1.20.4"}, "/dev/null")
    managed, sims, bearers = {}, 0, 0
    for number, one in enumerate(told["modems"]):
        cards = ([one["sim"]] if one.get("sim") else []) + one.get("idle_sims", [])
        for card in cards:
            properties = {"SimIdentifier": card, "Active": card == one.get("sim")}
            properties["PreferredNetworks"] = dbus.Array([], signature="(su)")
            manager.AddObject(f"{ROOT}/SIM/{sims + cards.index(card)}", f"{NAME}.Sim", properties, [])
        for position, bearer in enumerate(one.get("bearers", [])):
            properties = {
                "Interface": bearer.get("interface", ""),
                "Connected": bearer["connected"],
                "Stats": dbus.Dictionary(
                    {"attempts": dbus.UInt32(bearer.get("attempts", 1))}, signature="sv"
                ),
            }
            manager.AddObject(f"{ROOT}/Bearer/{bearers + position}", f"{NAME}.Bearer", properties, [])
        properties = modem(
            one["state"],
            range(sims, sims + len(cards)),
            sims if one.get("sim") else None,
            range(bearers, bearers + len(one.get("bearers", []))),
        )
        manager.AddObject(f"{ROOT}/Modem/{number}", f"{NAME}.Modem", properties, [])
        managed[f"{ROOT}/Modem/{number}"] = {f"{NAME}.Modem": properties}
        sims, bearers = sims + len(cards), bearers + len(one.get("bearers", []))
    manager.managed = managed
    manager.AddMethod(
        "org.freedesktop.DBus.ObjectManager",
        "GetManagedObjects",
        "",
        "a{oa{sa{sv}}}",
        "ret = dbus.Dictionary(self.managed, signature='oa{sa{sv}}')",
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
