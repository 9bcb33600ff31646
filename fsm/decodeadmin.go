package fsm

import "github.com/muster-registry/muster"

func readSetOverride(d *decoder) *SetOverride {
	o := &SetOverride{}
	for d.Next() {
		switch {
		case readKey(&o.Key, d):
		case d.Num == 4:
			o.Override = readOverride(d)
		default:
			d.caller(&o.Caller)
		}
	}
	d.named(o.Key)
	return o
}

func readClearOverride(d *decoder) *ClearOverride {
	o := &ClearOverride{}
	for d.Next() {
		switch {
		case readKey(&o.Key, d):
		case d.Num == 4:
			o.Term = d.uint(1<<64 - 1)
		case d.Num == 5:
			o.Until = d.time()
		default:
			d.caller(&o.Caller)
		}
	}
	d.named(o.Key)
	return o
}

func readGrantLease(d *decoder) *GrantLease {
	o := &GrantLease{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.TTL = d.ttl()
		case 2:
			o.Name = d.str()
		default:
			d.caller(&o.Caller)
		}
	}
	if o.TTL <= 0 {
		o.TTL = muster.TTL(muster.DefaultTTL)
	}
	return o
}

func readRevokeLease(d *decoder) *RevokeLease {
	o := &RevokeLease{}
	for d.Next() {
		if d.Num == 1 {
			o.ID = d.id()
			continue
		}
		d.caller(&o.Caller)
	}
	return o
}

func readConfigure(d *decoder) *Configure {
	o := &Configure{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Key.Namespace = d.str()
		case 2:
			o.Key.Service = d.str()
		case 3:
			o.Settings = readSettings(d)
		default:
			d.caller(&o.Caller)
		}
	}
	if d.Err() == nil && (o.Key.Namespace == "" || o.Key.Service == "") {
		d.Fail(errNoName)
	}
	return o
}

func readSwitchGovernor(d *decoder) *SwitchGovernor {
	o := &SwitchGovernor{}
	for d.Next() {
		if d.Num == 1 {
			o.On = d.bool()
			continue
		}
		d.caller(&o.Caller)
	}
	return o
}

// readRaise refuses a level that this build does not know: it would read what comes
// after as another build does not.
func readRaise(d *decoder) *Raise {
	o := &Raise{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.Term = d.uint(1<<64 - 1)
		case 2:
			o.Level = d.uint(1<<64 - 1)
		}
	}
	if o.Level > KnownLevel {
		d.Fail(levelError(o.Level))
	}
	return o
}

func readEpoch(d *decoder) *Epoch {
	o := &Epoch{}
	for d.Next() {
		if d.Num == 1 {
			o.ClusterID = d.str()
		}
	}
	return o
}

func readMember(d *decoder) *Member {
	o := &Member{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.ID = d.str()
		case 2:
			o.Boot = d.uint(1<<64 - 1)
		case 3:
			o.Removed = d.bool()
		}
	}
	return o
}

func readRestoreBegin(d *decoder) *RestoreBegin {
	o := &RestoreBegin{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.ID = d.str()
		case 2:
			o.Total = d.uint(1<<64 - 1)
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

func readRestoreChunk(d *decoder) *RestoreChunk {
	o := &RestoreChunk{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.ID = d.str()
		case 2:
			o.Offset = d.uint(1<<64 - 1)
		case 3:
			o.Data = d.bytes(MaxRestoreChunk)
		}
	}
	return o
}

func readRestoreCommit(d *decoder) *RestoreCommit {
	o := &RestoreCommit{}
	for d.Next() {
		switch d.Num {
		case 1:
			o.ID = d.str()
		case 2:
			if copy(o.SHA256[:], d.bytes(len(o.SHA256))) != len(o.SHA256) {
				d.Fail(errField)
			}
		default:
			d.caller(&o.Caller)
		}
	}
	return o
}

func readRestoreAbort(d *decoder) *RestoreAbort {
	o := &RestoreAbort{}
	for d.Next() {
		if d.Num == 1 {
			o.ID = d.str()
		}
	}
	return o
}

func readRefused(d *decoder) *refused {
	o := &refused{}
	for d.Next() {
		if d.Num == 1 {
			o.detail = d.str()
		}
	}
	return o
}
