"""The auditor: reads every replica of some RSEs anew, again and again, the oldest proof first.

A campaign has rounds on each RSE; all of their state is in Rucio's database (`audits`, `audit_rounds`, `audit_work`).
"""
