package VMware::VmPerl::KnownHosts;

# Trust on first use: the fingerprint of a host's certificate is kept, and must be the same ever after.
# File, form and lock are those of the C library.
#
#   file   $VMSERVERD_KNOWN_HOSTS, else $HOME/.vmware/known_hosts
#   line   host:port sha256:<64 hex digits of the certificate's DER form>
#   lock   the file's name and `.lock`; whoever adds a line writes `.new` and renames it
#
# Not to be able to keep it is an error: a first use that is never kept would accept everybody, every
# time.

use strict;
use warnings;

use Errno ();
use Fcntl qw(:flock O_APPEND O_CREAT O_EXCL O_WRONLY);
use File::Basename ();
use File::Path ();
use IO::Handle ();

our $VERSION = '1.0.0';

# Largest file that is taken for one of ours, in bytes.
my $MAX_FILE = 1024 * 1024;

# The file, or undef when there is no home directory.
sub file {
    my ($environment) = @_;
    my $file = $environment->{VMSERVERD_KNOWN_HOSTS};
    return $file if defined $file && length $file;
    my $home = $environment->{HOME};
    $home = (getpwuid $>)[7] if !defined $home || !length $home;
    return defined $home && length $home ? "$home/.vmware/known_hosts" : undef;
}

# Compares a fingerprint with the one that is kept, or keeps it. Returns nothing when all is well, else
# a sentence. `$rest` ends the call when its time is over.
sub check {
    my ($file, $server, $shown, $rest) = @_;
    return q(there is no home directory to keep the server's certificate in: name a file in VMSERVERD_KNOWN_HOSTS)
        if !defined $file;
    my $text = _read($file);
    my @found = defined $text ? _find($text, $server) : ();
    if (defined $text && !@found) {
        my $lock = _lock("$file.lock", $rest);
        # Somebody else may have been first.
        $text = $lock ? _read($file) : undef;
        @found = defined $text ? _find($text, $server) : ();
        if (defined $text && !@found) {
            $text .= "\n" if $text !~ /(?:^|\n)\z/;
            return if _replace($file, "$text$server $shown\n");
            undef $text;
        }
    }
    return "the certificate of $server cannot be remembered in $file: $!. Make the file writable, or name another one in "
        . 'VMSERVERD_KNOWN_HOSTS'
        if !defined $text;
    my ($line, $known) = @found;
    return if $known eq $shown;
    return "the certificate of $server is not the one seen before: it was $known and is $shown. If the server was given "
        . "a new certificate, remove line $line of $file and connect again; otherwise somebody may be listening in";
}

# The text of the file; a missing one is empty. undef and $! when it cannot be read.
sub _read {
    my ($file) = @_;
    open my $handle, '<', $file or return $!{ENOENT} ? '' : undef;
    if (-s $handle > $MAX_FILE) {
        $! = Errno::EFBIG();
        return;
    }
    local $/;
    my $text = <$handle>;
    return defined $text ? $text : '';
}

# Number of the line, counted from 1, and fingerprint of a server.
sub _find {
    my ($text, $server) = @_;
    my $number = 0;
    for my $line (split /\n/, $text) {
        $number++;
        my ($name, $known) = split ' ', $line;
        return ($number, $known) if defined $known && lc $name eq lc $server;
    }
    return;
}

# One writer at a time; the lock goes with the handle.
sub _lock {
    my ($file, $rest) = @_;
    my $directory = File::Basename::dirname($file);
    if (!-d $directory) {
        File::Path::make_path($directory, { mode => 0700, error => \my $errors });
    }
    sysopen my $handle, $file, O_WRONLY | O_APPEND | O_CREAT, 0600 or return;
    while (!flock $handle, LOCK_EX | LOCK_NB) {
        return if !$!{EWOULDBLOCK} && !$!{EINTR};
        $rest->();
        select undef, undef, undef, 0.005;
    }
    return $handle;
}

# Writes the file anew: whoever reads it sees the old or the new one, also after a crash.
sub _replace {
    my ($file, $text) = @_;
    # The lock is held: what is there was left by a process that was killed.
    unlink "$file.new";
    sysopen my $handle, "$file.new", O_WRONLY | O_CREAT | O_EXCL, 0600 or return;
    my $written = syswrite $handle, $text;
    return if !defined $written || $written != length $text;
    $handle->sync or return;
    close $handle or return;
    rename "$file.new", $file or return;
    # Not every system lets a directory be opened; then the name is as safe as it gets.
    if (open my $directory, '<', File::Basename::dirname($file)) {
        $directory->sync;
    }
    return 1;
}

1;

__END__

=head1 NAME

VMware::VmPerl::KnownHosts - certificates seen before

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>. Certificates of this software are self-signed as a rule; so the first one seen
of a host and port is kept in F<~/.vmware/known_hosts> (or the file named by C<VMSERVERD_KNOWN_HOSTS>), and another one later is an error that says
which line to remove.

=cut
