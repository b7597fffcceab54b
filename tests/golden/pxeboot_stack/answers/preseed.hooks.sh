#!/bin/sh
# Has debian-installer say how the install of web1 goes. preseed.cfg has it run, before anything is asked.
set -eu

answers=http://192.168.100.1/m/0123456789abcdef0123456789abcdef/answers/
state=/var/lib/pvmlab

[ ! -e "$state" ] || exit 0 # an answer file of your own may have it run, too
mkdir -p "$state"
wget -q -T 30 -t 4 -O /bin/pvmlab-report "${answers}report.sh"

cat > /bin/pvmlab-step <<'END_OF_SCRIPT'
#!/bin/sh
# pvmlab-step PHASE PERCENT MESSAGE: an install goes on, whether or not the lab can be told.
echo "$1 $2" > /var/lib/pvmlab/step
/bin/pvmlab-report "$1" running "$2" "$3" || true
END_OF_SCRIPT

cat > /bin/pvmlab-done <<'END_OF_SCRIPT'
#!/bin/sh
# The new system is whole and unmounted, and the network is still there.
touch /var/lib/pvmlab/done
/bin/pvmlab-report bootloader done 100 "debian-installer has finished" || true
END_OF_SCRIPT

cat > /bin/pvmlab-watch <<'END_OF_SCRIPT'
#!/bin/sh
# Says every few seconds what was logged last, as long as something is: silence means that the installer asks a person,
# or hangs. What it logs of a failed step is told as one. debootstrap logs nothing while it fetches: that is counted.
log=/var/log/syslog
archives=/target/var/cache/apt/archives
failed="main-menu\[[0-9]*\].*(Configuring '.*' failed with error code|Menu item '.*' failed)"
failed="$failed|no packages matching running kernel|package retrieval failed"
seen=0
fetched=0
while sleep 10; do
	[ ! -e /var/lib/pvmlab/done ] || exit 0
	lines=$(wc -l < $log)
	read -r phase percent < /var/lib/pvmlab/step
	if [ "$lines" -le "$seen" ]; then
		before=$fetched
		fetched=$(ls $archives 2> /dev/null | grep -c '\.deb') || true
		[ "$fetched" -le "$before" ] || /bin/pvmlab-report "$phase" running "$percent" "fetched $fetched packages" || true
		continue
	fi
	if why=$(tail -n +$((seen + 1)) $log | grep -E "$failed" | head -n 1) && [ -n "$why" ]; then
		case $why in
		*"no packages matching"*)
			why="$why; the mirror has newer kernels than this installer: ./pvmlab build native:debian-13:x86_64, after doit clean of its snapshot"
			;;
		*"package retrieval failed"*)
			component=$(grep 'DEBUG: retrieving ' $log | tail -n 1)
			why="$why: ${component##*DEBUG: retrieving }"
			;;
		esac
		/bin/pvmlab-report "$phase" failed "$percent" "${why#* * * * }" $log && exit 0
		continue
	fi
	seen=$lines
	# Warnings that mean nothing, lines without words; syslogd writes a carriage return as ^M.
	last=$(tail -n 20 $log | grep -v -E ' URL:| regular: |DEBUG: resolver|mtab won|leaked on|: ?(\^M)?$' | tail -n 1)
	last=${last%^M}
	/bin/pvmlab-report "$phase" running "$percent" "${last#* * * * }" || true
done
END_OF_SCRIPT
chmod 755 /bin/pvmlab-*

hook() { # FOLDER NUMBER PHASE PERCENT MESSAGE: a script that debian-installer runs when it gets there
	mkdir -p "$1"
	printf '#!/bin/sh\n/bin/pvmlab-step %s %s "%s"\nexit 0\n' "$3" "$4" "$5" > "$1/$2pvmlab"
	chmod 755 "$1/$2pvmlab"
}
hook /lib/partman/init.d 01 disk 15 "partitions the disk"
hook /lib/partman/finish.d 99 system 25 "the disk is partitioned; installs the base system"
hook /usr/lib/base-installer.d 01 system 45 "the base system is there; installs a kernel"
hook /usr/lib/post-base-installer.d 99 setup 55 "the base system is installed"
hook /usr/lib/pre-pkgsel.d 01 setup 65 "installs packages"
hook /usr/lib/finish-install.d 01 bootloader 90 "the boot loader is installed; finishes"
# After 95umount, before 97release-dhcp-lease.
mkdir -p /usr/lib/finish-install.d
printf '#!/bin/sh\nexec /bin/pvmlab-done\n' > /usr/lib/finish-install.d/96pvmlab
chmod 755 /usr/lib/finish-install.d/96pvmlab

/bin/pvmlab-step configuration 10 "the answers are read; looks for the installer's components"
/bin/pvmlab-watch < /dev/null > /dev/null 2>&1 &
